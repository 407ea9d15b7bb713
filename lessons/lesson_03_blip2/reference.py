"""BLIP-2's first stage in pure Python (Li et al., arXiv:2301.12597).

A frozen encoder represents an image by nine feature vectors. Four learned queries extract from them what the image's
caption describes, trained by three tasks: to find the caption among others (contrast), to tell it from a hard negative
(matching), and to generate it (generation). One set of weights serves all three; only the attention mask differs.
The images are handwritten digits, the captions their names, letter by letter:

    python -S -m lessons.lesson_03_blip2.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from functools import partial
from operator import eq
from random import Random
from typing import NamedTuple

from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import full, normal
from shared.stdlib.digit_windows import FEATURES, draw_attention, window_features
from shared.stdlib.functional import concatenate, cross_entropy, embedding, gelu, linear, normalize, softmax
from shared.stdlib.nn import MLP, Embedding, LayerNorm, Linear, Module, MultiHeadAttention
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── The captions: names of digits ─────────────────────────────────────────────────────────────────────────────────────

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = sorted(set("".join(NAMES)))
BEGIN, DECODE, END = range(3)  # first token of a text to encode, of a text to generate, and last token
VOCAB_SIZE = 3 + len(LETTERS)
MAX_TOKENS = 2 + max(map(len, NAMES))


def tokenize(name: str) -> list[int]:
    """Return the token ids of a name: begin, its letters, end."""
    return [BEGIN, *(3 + LETTERS.index(letter) for letter in name), END]


def pad(texts: list[list[int]]) -> list[list[int]]:
    """Return the texts with `END` repeated up to the maximum length."""
    return [text + [END] * (MAX_TOKENS - len(text)) for text in texts]


# ── Three tasks, three masks (section 3.2, figure 2) ──────────────────────────────────────────────────────────────────


def task_mask(task: str, queries: int, lengths: list[int], text: int) -> Tensor:
    """Return the scores' additive mask [texts, 1, queries + text, queries + text]: 0 where i attends to j, else −∞.

    The sequence is [queries, text]. Text k has lengths[k] tokens, then padding, which no token attends to.
    "contrastive": queries attend to queries, text to text. "matching": every token attends to every token.
    "generation": queries attend to queries; a text token attends to the queries, itself and the text before it.
    """
    # exercise 3.2: three masks, spelled out
    size = queries + text

    def attends(i: int, j: int, length: int) -> bool:
        if max(i, j) >= queries + length:
            return False
        if task == "matching":
            return True
        if task == "contrastive":
            return (i < queries) == (j < queries)
        return j < queries or queries <= j <= i

    values = [
        0.0 if attends(i, j, length) else -math.inf for length in lengths for i in range(size) for j in range(size)
    ]
    return Tensor(values, (len(lengths), 1, size, size))
    # end exercise


# ── The Q-Former (section 3.1) ────────────────────────────────────────────────────────────────────────────────────────


class Sizes(NamedTuple):
    """The sizes of the model, named as in the PyTorch version."""

    queries: int = 4
    width: int = 16
    depth: int = 2
    heads: int = 2
    mlp_dim: int = 32
    context_width: int = FEATURES
    projection_dim: int = 12


class QFormerBlock(Module):
    """Self-attention of queries and text, cross-attention of the queries to the image, and separate MLPs.

    The output of every part is added to its input, and the sum is normalized, as in BERT.
    """

    def __init__(self, sizes: Sizes, layer: int, random: Random):
        width, heads, mlp_dim = sizes.width, sizes.heads, sizes.mlp_dim
        self.attention, self.attention_norm = MultiHeadAttention(width, heads, random), LayerNorm(width, 1e-12)
        self.cross_attention = self.cross_attention_norm = None
        if layer % 2 == 0:
            self.cross_attention = MultiHeadAttention(width, heads, random, context_width=sizes.context_width)
            self.cross_attention_norm = LayerNorm(width, 1e-12)
        self.mlp, self.mlp_norm = MLP(width, mlp_dim, random), LayerNorm(width, 1e-12)
        self.text_mlp, self.text_mlp_norm = MLP(width, mlp_dim, random), LayerNorm(width, 1e-12)

    def self_attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.attention_norm(x + self.attention(x, mask=mask))

    def forward(self, x: Tensor, queries: int, context: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.self_attend(x, mask)
        parts = []
        if queries:
            query_states = x[:, :queries]
            if self.cross_attention is not None:
                query_states = self.cross_attention_norm(query_states + self.cross_attention(query_states, context))
            parts.append(self.mlp_norm(query_states + self.mlp(query_states)))
        if x.shape[1] > queries:
            text_states = x[:, queries:]
            parts.append(self.text_mlp_norm(text_states + self.text_mlp(text_states)))
        return concatenate(parts, axis=1)


class QFormer(Module):
    """A stack of blocks; every other block, from the first, has cross-attention to the image."""

    def __init__(self, sizes: Sizes, random: Random):
        self.norm = LayerNorm(sizes.width, 1e-12)
        self.blocks = [QFormerBlock(sizes, layer, random) for layer in range(sizes.depth)]

    def forward(self, x: Tensor, queries: int, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, queries, context, mask)
        return x

    def cross_attention_maps(self, queries: Tensor, context: Tensor) -> list[Tensor]:
        """Return the queries' attention to the image in each block that has any: [images, heads, queries, windows]."""
        x, maps = self.norm(queries), []
        for block in self.blocks:
            if block.cross_attention is not None:
                maps.append(block.cross_attention.weights(block.self_attend(x, None), context))
            x = block(x, x.shape[1], context, None)
        return maps


class Retriever(Module):
    """The queries, token and position embeddings, the Q-Former, and the projections to the shared space."""

    def __init__(self, sizes: Sizes, random: Random):
        width = sizes.width
        self.queries = normal((sizes.queries, width), 0.5, random, requires_grad=True)
        self.word_embedding = Embedding(VOCAB_SIZE, width, random)
        self.position_embedding = Embedding(MAX_TOKENS, width, random)
        self.qformer = QFormer(sizes, random)
        self.image_projection = Linear(width, sizes.projection_dim, random)
        self.text_projection = Linear(width, sizes.projection_dim, random)
        self.matching_classifier = Linear(width, 2, random)

    def embed(self, texts: list[list[int]]) -> Tensor:
        rows = embedding([token for text in texts for token in text], self.word_embedding.weight)
        return rows.reshape(len(texts), len(texts[0]), rows.shape[1]) + self.position_embedding.weight[: len(texts[0])]

    def expanded_queries(self, images: int) -> Tensor:
        return self.queries.expand(images, *self.queries.shape)

    def query_and_text_states(self, task: str, features: Tensor, texts: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return the final states of queries and text after one pass with the mask of a task; texts of any lengths."""
        queries, lengths, texts = self.queries.shape[0], list(map(len, texts)), pad(texts)
        x = concatenate([self.expanded_queries(len(texts)), self.embed(texts)], axis=1)
        x = self.qformer(x, queries, features, task_mask(task, queries, lengths, MAX_TOKENS))
        return x[:, :queries], x[:, queries:]

    def image_embeddings(self, features: Tensor) -> Tensor:
        """Return each image in the shared space, one vector of length 1 per query: [images, queries, projection]."""
        queries = self.expanded_queries(features.shape[0])
        return normalize(self.image_projection(self.qformer(queries, queries.shape[1], features)))

    def text_embeddings(self, texts: list[list[int]]) -> Tensor:
        """Return each text in the shared space, the projected state of its first token: [texts, projection]."""
        mask = task_mask("matching", 0, list(map(len, texts)), MAX_TOKENS)
        return normalize(self.text_projection(self.qformer(self.embed(pad(texts)), 0, mask=mask)[:, 0]))


# ── Three losses (section 3.2) ────────────────────────────────────────────────────────────────────────────────────────


def image_text_similarity(image_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
    """Map [images, queries, projection] and [texts, projection] to [images, texts]: the largest cosine over queries."""
    # exercise 3.1: the maximum over queries
    images, queries, dimension = image_embeddings.shape
    cosines = image_embeddings.reshape(images * queries, dimension) @ text_embeddings.transpose()
    return cosines.reshape(images, queries, text_embeddings.shape[0]).max(1)
    # end exercise


def hard_negative_probabilities(scores: Tensor) -> list[list[float]]:
    """Return each candidate's probability as a row's negative: the softmax of the scores without the true pair."""
    probabilities = []
    for row, values in enumerate(softmax(scores).tolist()):
        others = [0.0 if column == row else value + 1e-6 for column, value in enumerate(values)]
        probabilities.append([value / sum(others) for value in others])
    return probabilities


class FirstStage(Module):
    """The training objective: three losses on one batch of pairs."""

    def __init__(self, retriever: Retriever, random: Random):
        width = retriever.queries.shape[1]
        self.retriever = retriever
        self.log_temperature = full((), math.log(0.07), requires_grad=True)
        self.lm_transform, self.lm_norm = Linear(width, width, random), LayerNorm(width, 1e-5)
        self.lm_bias = full((VOCAB_SIZE,), 0.0, requires_grad=True)

    def contrastive_scores(self, features: Tensor, texts: list[list[int]]) -> Tensor:
        """Return similarities divided by the temperature: [pairs, pairs], with the true pairs on the diagonal."""
        queries, text = self.retriever.query_and_text_states("contrastive", features, texts)
        images = normalize(self.retriever.image_projection(queries))
        texts = normalize(self.retriever.text_projection(text[:, 0]))
        return image_text_similarity(images, texts) / self.log_temperature.exp()

    def losses(
        self, features: Tensor, texts: list[list[int]], random: Random, negatives: list[list[int]] | None = None
    ) -> dict[str, Tensor]:
        """Return each loss by its name; `negatives` (texts, images) are drawn when None."""
        scores, targets = self.contrastive_scores(features, texts), list(range(len(texts)))
        if negatives is None:
            negatives = [
                [random.choices(targets, probabilities)[0] for probabilities in hard_negative_probabilities(matrix)]
                for matrix in (scores, scores.transpose())
            ]
        return {
            "contrastive": (cross_entropy(scores, targets) + cross_entropy(scores.transpose(), targets)) * 0.5,
            "matching": self._matching_loss(features, texts, *negatives),
            "generation": self._generation_loss(features, texts),
        }

    def _matching_loss(
        self, features: Tensor, texts: list[list[int]], negative_texts: list[int], negative_images: list[int]
    ) -> Tensor:
        negatives = concatenate([features[index : index + 1] for index in negative_images])
        queries, _ = self.retriever.query_and_text_states(
            "matching",
            concatenate([features, features, negatives]),
            [*texts, *(texts[index] for index in negative_texts), *texts],
        )
        logits = self.retriever.matching_classifier(queries).mean(1)
        return cross_entropy(logits, [1] * len(texts) + [0] * (2 * len(texts)))

    def _generation_loss(self, features: Tensor, texts: list[list[int]]) -> Tensor:
        logits = self.generation_logits(features, texts)
        predictions = [logits[row, : len(text) - 1] for row, text in enumerate(texts)]
        return cross_entropy(concatenate(predictions), [token for text in texts for token in text[1:]])

    def generation_logits(self, features: Tensor, texts: list[list[int]]) -> Tensor:
        """Return the logits of the letter after each token: [texts, MAX_TOKENS, vocabulary]."""
        inputs = [[DECODE, *text[1:]] for text in texts]
        _, text_states = self.retriever.query_and_text_states("generation", features, inputs)
        states = self.lm_norm(gelu(self.lm_transform(text_states)))
        return linear(states, self.retriever.word_embedding.weight, self.lm_bias)


# ── Training and evaluation ───────────────────────────────────────────────────────────────────────────────────────────

STEPS, QUICK_STEPS, LEARNING_RATE = 160, 8, 1.5e-2
CLASSIFIED, GENERATED = 200, 100  # held-out images of each evaluation


def fit(model: FirstStage, data: digits.Digits, steps: int, random: Random) -> list[float]:
    """Train on batches of one digit per name: two digits of one name would be each other's false negatives."""
    indices_by_label = [[index for index, label in enumerate(data.labels) if label == digit] for digit in range(10)]

    def loss_at(step: int) -> Tensor:
        images = [data.images[random.choice(indices)] for indices in indices_by_label]
        losses = model.losses(window_features(images), list(map(tokenize, NAMES)), random)
        return losses["contrastive"] + losses["matching"] + losses["generation"]

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.02)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="Q-Former")


def classify(model: FirstStage, images: list[list[int]]) -> list[int]:
    """Return the digit whose name is the most similar to each image."""
    with no_grad():
        text_embeddings = model.retriever.text_embeddings(list(map(tokenize, NAMES)))
        image_embeddings = model.retriever.image_embeddings(window_features(images))
        scores = image_text_similarity(image_embeddings, text_embeddings).tolist()
    return [row.index(max(row)) for row in scores]


def generate(model: FirstStage, images: list[list[int]]) -> list[str]:
    """Return the name that the model generates for each image, greedily."""
    features, texts = window_features(images), [[BEGIN]] * len(images)
    with no_grad():
        for position in range(MAX_TOKENS - 1):
            logits = model.generation_logits(features, texts)[:, position].tolist()
            texts = [[*text, row.index(max(row))] for text, row in zip(texts, logits, strict=True)]
    names = [text[1 : text.index(END)] if END in text else text[1:] for text in texts]
    return ["".join(LETTERS[token - 3] if token >= 3 else "?" for token in name) for name in names]


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits; print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    training, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = FirstStage(Retriever(Sizes(), random), random)
    losses = fit(model, training, steps, random)
    images, labels = held_out.images[:CLASSIFIED], held_out.labels[:CLASSIFIED]
    baseline = digits.classify_by_nearest_mean(training, images)
    names = generate(model, images[:GENERATED])
    result = {
        "seed": seed,
        "steps": steps,
        "parameters": sum(len(parameter.data) for parameter in model.parameters().values()),
        "contrast_accuracy": sum(map(eq, classify(model, images), labels)) / len(labels),
        "generation_accuracy": sum(map(eq, names, (NAMES[label] for label in labels))) / len(names),
        "baseline_accuracy": sum(map(eq, baseline, labels)) / len(labels),
        "seconds": time.perf_counter() - start,
        "losses": losses,
    }
    with no_grad():
        features, queries = window_features(images[:1]), model.retriever.expanded_queries(1)
        maps = model.retriever.qformer.cross_attention_maps(queries, features)[-1].mean(1).tolist()[0]
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\nheld out: {len(labels)} digits that training did not use (seed {seed}); chance is 10 %")
    print(f"  nearest class mean                         {result['baseline_accuracy']:6.1%}")
    print(f"  most similar of the ten names (contrast)   {result['contrast_accuracy']:6.1%}")
    print(f"  name generated with every letter correct   {result['generation_accuracy']:6.1%}   ({len(names)} digits)")
    print(f"  {result['parameters']:,} parameters, {result['seconds']:.0f} s")
    print(f"\na held-out {NAMES[labels[0]]}, generated name “{names[0]}”; right, the attention of each query:")
    print(draw_attention(images[0], maps))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a Q-Former on digits and their names in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="held-out digits and every random draw (default 0)")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
