"""LLaVA in pure Python, beside its paper (Liu et al., arXiv:2304.08485).

A language model has read about numbers: which one is even, which is large, which comes next. It has never seen one. Two small
matrices put images of handwritten digits where it expects words. First they alone learn (stage 1), from naming digits; then
all learn from questions and answers, and only what the assistant says counts in the loss (stage 2):

    python -S -m lessons.lesson_05_llava.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from collections.abc import Iterable
from functools import partial
from random import Random

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import no_grad
from shared.stdlib.functional import concatenate, cross_entropy, embedding, gelu, silu, softmax
from shared.stdlib.nn import Embedding, Linear, Module, RMSNorm
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── Conversations about digits ─────────────────────────────────────────────────────────────────────────────────────────

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUESTIONS = ("which", "even", "large", "next")
WORDS = ("<image>", "<user>", "<assistant>", "<end>", *QUESTIONS, "yes", "no", *NAMES)
IMAGE, USER, ASSISTANT, END = range(4)
TILE = 4
PATCHES = (digits.SIDE // TILE) ** 2


def answer_to(question: str, digit: int) -> str:
    """What is right: the digit's name, whether it is even, whether it is above four, the name of the one after it."""
    if question == "even":
        return "yes" if digit % 2 == 0 else "no"
    if question == "large":
        return "yes" if digit > 4 else "no"
    return NAMES[(digit + (question == "next")) % 10]


def conversation(subject: str, turns: list[tuple[str, str]]) -> list[int]:
    """Questions about a subject (an image, or a digit's name) and their answers, as tokens. An answer "" ends it open.

    <user> subject question <assistant> answer <end> <user> question <assistant> answer <end> …
    """
    row = []
    for number, (question, answer) in enumerate(turns):
        row += [USER, *([WORDS.index(subject)] if number == 0 else []), WORDS.index(question), ASSISTANT]
        row += [WORDS.index(answer), END] if answer else []
    return row


def expanded(row: list[int], patches: int) -> list[int]:
    """Each `<image>`, written once, stands as often as an image has patches."""
    return [token for token in row for _ in range(patches if token == IMAGE else 1)]


def learned(row: list[int]) -> list[bool]:
    """Whether each token is the assistant's own: what stands after `<assistant>` up to and with `<end>` (table 2)."""
    # exercise 5.1: only what the assistant says
    own, speaking = [], False
    for token in row:
        own.append(speaking)
        speaking = token == ASSISTANT or (speaking and token != END)
    return own
    # end exercise


def frozen_eye(images: list[list[int]]) -> Tensor:
    """What an eye that never learns makes of digits: [images, 4 patches, 16 pixels and 4 numbers that say where].

    (In the paper it is CLIP's vision transformer, without its last block.)
    """
    side, numbers = digits.SIDE, []
    for image in images:
        for patch in range(PATCHES):
            top, left = divmod(patch, side // TILE)
            for y in range(top * TILE, (top + 1) * TILE):
                start = y * side + left * TILE
                numbers += [pixel / digits.MAX_PIXEL for pixel in image[start : start + TILE]]
            numbers += [float(place == patch) for place in range(PATCHES)]
    return Tensor(numbers, (len(images), PATCHES, TILE * TILE + PATCHES))


# ── The language model: a small Llama (lesson 0) ───────────────────────────────────────────────────────────────────────


def rotate(x: Tensor, base: float = 10_000.0) -> Tensor:
    """Turn queries or keys [batch, heads, tokens, head_dim] by their places (arXiv:2104.09864)."""
    tokens, head_dim = x.shape[-2:]
    half = head_dim // 2
    angles = [place * base ** (-2 * i / head_dim) for place in range(tokens) for i in range(half)]
    cos, sin = (Tensor(list(map(turn, angles)), (tokens, half)) for turn in (math.cos, math.sin))
    first, second = x[:, :, :, :half], x[:, :, :, half:]
    return concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class Attention(Module):
    """Each token looks at itself and at those before it, in several heads; no biases."""

    def __init__(self, width: int, heads: int, random: Random):
        self.heads = heads
        self.query, self.key, self.value, self.output = (Linear(width, width, random, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        shape = batch, tokens, self.heads, width // self.heads
        query, key, value = (part(x).reshape(*shape).permute(0, 2, 1, 3) for part in (self.query, self.key, self.value))
        causal = Tensor([0.0 if k <= q else -math.inf for q in range(tokens) for k in range(tokens)], (tokens, tokens))
        scores = rotate(query) @ rotate(key).transpose() * (1.0 / math.sqrt(shape[-1]))
        return self.output((softmax(scores + causal) @ value).permute(0, 2, 1, 3).reshape(batch, tokens, width))


class SwiGLU(Module):
    """Each token by itself: one matrix opens and closes what the other says."""

    def __init__(self, width: int, mlp_dim: int, random: Random):
        self.gate, self.up = Linear(width, mlp_dim, random, bias=False), Linear(width, mlp_dim, random, bias=False)
        self.down = Linear(mlp_dim, width, random, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))


class Block(Module):
    """Look back, then think; both add to what was there."""

    def __init__(self, width: int, heads: int, mlp_dim: int, random: Random):
        self.attention_norm, self.attention = RMSNorm(width, 1e-5), Attention(width, heads, random)
        self.mlp_norm, self.mlp = RMSNorm(width, 1e-5), SwiGLU(width, mlp_dim, random)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class LanguageModel(Module):
    """Vectors [rows, tokens, width] → logits of the token after each, [rows, tokens, words]."""

    def __init__(self, width: int, layers: int, heads: int, mlp_dim: int, random: Random):
        self.embedding = Embedding(len(WORDS), width, random)
        self.blocks = [Block(width, heads, mlp_dim, random) for _ in range(layers)]
        self.norm = RMSNorm(width, 1e-5)
        self.output = Linear(width, len(WORDS), random, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))


# ── What LLaVA adds (section 4.1; the second matrix is arXiv:2310.03744's) ─────────────────────────────────────────────


class Projector(Module):
    """From what the eye says of a patch to what the language model reads: two matrices, GELU between them."""

    def __init__(self, features: int, width: int, random: Random):
        self.first, self.second = Linear(features, width, random), Linear(width, width, random)

    def forward(self, features: Tensor) -> Tensor:
        return self.second(gelu(self.first(features)))


def put_images(tokens: list[int], text: Tensor, vectors: Tensor) -> Tensor:
    """Words' vectors [tokens, width], with the images' [patches of all, width] in the places of IMAGE, in reading order.

    Raises ValueError when there are more or fewer places than vectors.
    """
    places = [place for place, token in enumerate(tokens) if token == IMAGE]
    if len(places) != vectors.shape[0]:
        raise ValueError(f"the text has {len(places)} image tokens, but the images take {vectors.shape[0]}")
    # exercise 5.2: images in the places of words
    # Both stand in one table, words first; each place picks its row.
    row_of = dict(zip(places, range(len(tokens), len(tokens) + len(places)), strict=True))
    return embedding([row_of.get(place, place) for place in range(len(tokens))], concatenate([text, vectors]))
    # end exercise


class Llava(Module):
    """A projector and a language model; the eye stands outside, for it never learns."""

    def __init__(self, projector: Projector, language: LanguageModel):
        self.projector, self.language_model = projector, language

    def forward(self, rows: list[list[int]], features: Tensor | None = None) -> Tensor:
        """Logits [rows, tokens, words] of rows of one length; `features` are those of all their images, in reading order."""
        tokens = [token for row in rows for token in row]
        x = self.language_model.embedding(tokens)
        if features is not None:
            vectors = self.projector(features)
            x = put_images(tokens, x, vectors.reshape(vectors.shape[0] * vectors.shape[1], vectors.shape[2]))
        return self.language_model(x.reshape(len(rows), len(rows[0]), x.shape[-1]))


def sft_loss(logits: Tensor, rows: list[list[int]]) -> Tensor:
    """The mean surprise at every token of the assistant's own; row i of the logits speaks of token i + 1."""
    width = len(rows[0])
    asked = [(k, t) for k, row in enumerate(rows) for t, own in enumerate(learned(row)) if own]
    flat = logits.reshape(len(rows) * width, len(WORDS))
    return cross_entropy(embedding([k * width + t - 1 for k, t in asked], flat), [rows[k][t] for k, t in asked])


# ── Learning ───────────────────────────────────────────────────────────────────────────────────────────────────────────

WIDTH, LAYERS, HEADS, HIDDEN_WIDTH = 24, 2, 2, 48
ROWS = 10
TEXT_STEPS, FIRST_STEPS, SECOND_STEPS = 80, 100, 100
LEARNING_RATE = 1e-2
ASKED = 100


def fit(model: Module, loss_at, learning: list[Tensor], steps: int, label: str) -> list[float]:
    optimizer = AdamW(learning, LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.02)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label=label)


def all_turns(digit: int, random: Random) -> list[tuple[str, str]]:
    """All questions about a digit with their answers, in any order."""
    return [(question, answer_to(question, digit)) for question in random.sample(QUESTIONS, len(QUESTIONS))]


def learn_to_read(model: Llava, steps: int, random: Random) -> list[float]:
    """Before any image: conversations about digits that are named, in words."""

    def loss_at(step: int) -> Tensor:
        rows = [conversation(NAMES[digit], all_turns(digit, random)) for digit in range(10)]
        return sft_loss(model(rows), rows)

    return fit(model, loss_at, list(model.language_model.parameters().values()), steps, "language model")


def learn_to_look(model: Llava, data: digits.Digits, steps: int, stage: int, random: Random) -> list[float]:
    """Stage 1: images and their names, and the projector alone learns. Stage 2: all questions, and all learn (section 4.2)."""
    learning, language = (
        list((model.projector if stage == 1 else model).parameters().values()),
        model.language_model.parameters(),
    )
    freeze(language.values(), stage == 1)

    def loss_at(step: int) -> Tensor:
        chosen = data.subset(random.sample(range(len(data.images)), ROWS))
        turns = [[("which", NAMES[k])] if stage == 1 else all_turns(k, random) for k in chosen.labels]
        rows = [expanded(conversation("<image>", said), PATCHES) for said in turns]
        return sft_loss(model(rows, frozen_eye(chosen.images)), rows)

    losses = fit(model, loss_at, learning, steps, f"stage {stage}")
    freeze(language.values(), False)
    return losses


def freeze(weights: Iterable[Tensor], frozen: bool) -> None:
    """Of a frozen weight no gradient is taken; gradients still pass through what it does."""
    for weight in weights:
        weight.requires_grad = not frozen


def answers(model: Llava, images: list[list[int]], question: str, longest: int = 2) -> list[str]:
    """What it says when asked about each image, always the likeliest word, up to <end>."""
    rows, features = [expanded(conversation("<image>", [(question, "")]), PATCHES) for _ in images], frozen_eye(images)
    asked = len(rows[0])
    with no_grad():
        for _ in range(longest):
            logits = model(rows, features)[:, -1].tolist()
            rows = [[*row, chances.index(max(chances))] for row, chances in zip(rows, logits, strict=True)]
    said = [row[asked : row.index(END, asked) if END in row[asked:] else None] for row in rows]
    return [" ".join(WORDS[token] for token in tokens) for tokens in said]


def accuracies(model: Llava, held_out: digits.Digits, images: list[list[int]]) -> dict[str, float]:
    """The share of right answers to each question, when these images are shown."""
    right = {}
    for question in QUESTIONS:
        given = answers(model, images, question)
        right[question] = sum(
            said == answer_to(question, k) for said, k in zip(given, held_out.labels, strict=True)
        ) / len(given)
    return right


def run(
    *,
    text_steps: int = TEXT_STEPS,
    first: int = FIRST_STEPS,
    second: int = SECOND_STEPS,
    asked: int = ASKED,
    seed: int = 0,
) -> dict[str, float | int | dict | list[float]]:
    """Train on four fifths of the digits, and print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    kept, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    held_out = held_out.subset(list(range(asked)))
    language = LanguageModel(WIDTH, LAYERS, HEADS, HIDDEN_WIDTH, random)
    model = Llava(Projector(TILE * TILE + PATCHES, WIDTH, random), language)
    learn_to_read(model, text_steps, random)
    before = [list(weight.data) for weight in language.parameters().values()]
    first_losses = learn_to_look(model, kept, first, 1, random)
    stayed = before == [list(weight.data) for weight in language.parameters().values()]
    after_first = accuracies(model, held_out, held_out.images)
    losses = learn_to_look(model, kept, second, 2, random)
    result = {
        "seed": seed,
        "parameters": sum(len(weight.data) for weight in model.parameters().values()),
        "language_stayed": stayed,
        "after_first": after_first,
        "accuracy": accuracies(model, held_out, held_out.images),
        # The same questions, another picture: what can be answered without looking.
        "blind_accuracy": accuracies(model, held_out, held_out.images[1:] + held_out.images[:1]),
        "first_losses": first_losses,
        "losses": losses,
        "seconds": time.perf_counter() - start,
    }
    report(
        result,
        held_out.images[0],
        {question: answers(model, held_out.images[:1], question)[0] for question in QUESTIONS},
    )
    return result


def report(result: dict, image: list[int], said: dict[str, str]) -> None:
    for stage, losses in ((1, result["first_losses"]), (2, result["losses"])):
        print(f"\nstage {stage}: loss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"in stage 1 no weight of the language model moved: {result['language_stayed']}")
    print("\nright answers about held-out digits" + "".join(f"{question:>9}" for question in QUESTIONS))
    rows = {"after stage 1": "after_first", "after stage 2": "accuracy", "… shown another digit": "blind_accuracy"}
    for name, key in rows.items():
        print(f"  {name:33}" + "".join(f"{result[key][question]:9.0%}" for question in QUESTIONS))
    print(f"  {result['parameters']:,} parameters, {result['seconds']:.0f} s\n")
    side = digits.SIDE
    print("\n".join("  " + line for line in ascii_image([image[row * side : (row + 1) * side] for row in range(side)])))
    print("  " + "   ".join(f"{question}? {answer}." for question, answer in said.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Teach a language model to answer questions about images, in pure Python."
    )
    parser.add_argument("--quick", action="store_true", help="a few steps of each stage, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="what is held out, and every random draw (default 0)")
    options = parser.parse_args()
    run(**({"text_steps": 8, "first": 6, "second": 5, "asked": 20} if options.quick else {}), seed=options.seed)


if __name__ == "__main__":
    main()
