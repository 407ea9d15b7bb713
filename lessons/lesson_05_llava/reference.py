"""LLaVA in pure Python, beside its paper (Liu et al., arXiv:2304.08485).

A small Llama, in shared/stdlib/decoder.py, is pretrained on text about digits: which is even, which is large, which
comes next. A projector then maps images of handwritten digits to its embeddings. Stage 1 trains the projector alone,
on digits and their names. Stage 2 trains everything on questions and answers; only the assistant's tokens are in the
loss:

    python -S -m lessons.lesson_05_llava.reference [--quick] [--seed N]
"""

import argparse
import time
from collections.abc import Iterable
from functools import partial
from random import Random

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import no_grad
from shared.stdlib.decoder import Decoder
from shared.stdlib.functional import concatenate, cross_entropy, embedding, gelu
from shared.stdlib.nn import Linear, Module
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── Conversations about digits ────────────────────────────────────────────────────────────────────────────────────────

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUESTIONS = ("which", "even", "large", "next")
WORDS = ("<image>", "<user>", "<assistant>", "<end>", *QUESTIONS, "yes", "no", *NAMES)
IMAGE, USER, ASSISTANT, END = range(4)
TILE = 4
PATCHES = (digits.SIDE // TILE) ** 2


def answer_to(question: str, digit: int) -> str:
    """Return the right answer: the digit's name, whether it is even or above four, or the next digit's name."""
    if question == "even":
        return "yes" if digit % 2 == 0 else "no"
    if question == "large":
        return "yes" if digit > 4 else "no"
    return NAMES[(digit + (question == "next")) % 10]


def conversation(subject: str, turns: list[tuple[str, str]]) -> list[int]:
    """Return questions about a subject (an image, or a digit's name) and their answers as token ids.

    An answer "" leaves the conversation open for generation:

    <user> subject question <assistant> answer <end> <user> question <assistant> answer <end> …
    """
    row = []
    for number, (question, answer) in enumerate(turns):
        row += [USER, *([WORDS.index(subject)] if number == 0 else []), WORDS.index(question), ASSISTANT]
        row += [WORDS.index(answer), END] if answer else []
    return row


def expand_images(row: list[int], patches: int) -> list[int]:
    """Repeat each `<image>` as often as an image has patches."""
    return [token for token in row for _ in range(patches if token == IMAGE else 1)]


def loss_mask(row: list[int]) -> list[bool]:
    """Return whether each token is in the loss: those after `<assistant>`, up to and including `<end>` (table 2)."""
    # exercise 5.1: the loss mask
    mask, in_answer = [], False
    for token in row:
        mask.append(in_answer)
        in_answer = token == ASSISTANT or (in_answer and token != END)
    return mask
    # end exercise


def frozen_features(images: list[list[int]]) -> Tensor:
    """Return features of a frozen encoder: [images, 4 patches, 16 pixels and a one-hot position of 4].

    The paper uses CLIP's Vision Transformer without its last block.
    """
    side, values = digits.SIDE, []
    for image in images:
        for patch in range(PATCHES):
            top, left = divmod(patch, side // TILE)
            for y in range(top * TILE, (top + 1) * TILE):
                start = y * side + left * TILE
                values += [pixel / digits.MAX_PIXEL for pixel in image[start : start + TILE]]
            values += [float(index == patch) for index in range(PATCHES)]
    return Tensor(values, (len(images), PATCHES, TILE * TILE + PATCHES))


# ── What LLaVA adds (section 4.1; the second linear layer is from arXiv:2310.03744) ───────────────────────────────────


class Projector(Module):
    """A two-layer MLP with GELU from the features of a patch to an embedding of the language model."""

    def __init__(self, features: int, width: int, random: Random):
        self.first, self.second = Linear(features, width, random), Linear(width, width, random)

    def forward(self, features: Tensor) -> Tensor:
        return self.second(gelu(self.first(features)))


def splice_images(tokens: list[int], text: Tensor, images: Tensor) -> Tensor:
    """Return the text embeddings [tokens, width] with the image embeddings [all patches, width] at the IMAGE positions.

    Raises ValueError when the numbers of positions and image embeddings differ.
    """
    positions = [position for position, token in enumerate(tokens) if token == IMAGE]
    if len(positions) != images.shape[0]:
        raise ValueError(f"the text has {len(positions)} image tokens, but the images take {images.shape[0]}")
    # exercise 5.2: image embeddings at the image positions
    # Text and image embeddings form one table; each position selects a row of it.
    row_of = dict(zip(positions, range(len(tokens), len(tokens) + len(positions)), strict=True))
    rows = [row_of.get(position, position) for position in range(len(tokens))]
    return embedding(rows, concatenate([text, images]))
    # end exercise


class Llava(Module):
    """A projector and a language model; the frozen vision encoder is outside."""

    def __init__(self, projector: Projector, language_model: Decoder):
        self.projector, self.language_model = projector, language_model

    def forward(self, rows: list[list[int]], features: Tensor | None = None) -> Tensor:
        """Return logits [rows, tokens, words] for rows of equal length; `features` belong to their images in order."""
        tokens = [token for row in rows for token in row]
        x = self.language_model.embedding(tokens)
        if features is not None:
            images = self.projector(features)
            x = splice_images(tokens, x, images.reshape(images.shape[0] * images.shape[1], images.shape[2]))
        return self.language_model(x.reshape(len(rows), len(rows[0]), x.shape[-1]))


def sft_loss(logits: Tensor, rows: list[list[int]]) -> Tensor:
    """Return the mean cross-entropy of the tokens in the loss mask; logits at position t predict token t + 1."""
    width = len(rows[0])
    targets = [(k, t) for k, row in enumerate(rows) for t, in_loss in enumerate(loss_mask(row)) if in_loss]
    flat = logits.reshape(len(rows) * width, len(WORDS))
    return cross_entropy(embedding([k * width + t - 1 for k, t in targets], flat), [rows[k][t] for k, t in targets])


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────

WIDTH, DEPTH, HEADS, MLP_DIM = 24, 2, 2, 48
ROWS = 10
TEXT_STEPS, FIRST_STEPS, SECOND_STEPS = 80, 100, 100
LEARNING_RATE = 1e-2
HELD_OUT = 100


def fit(model: Module, loss_at, parameters: list[Tensor], steps: int, label: str) -> list[float]:
    """Train some parameters with AdamW and return the losses."""
    optimizer = AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.02)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label=label)


def all_turns(digit: int, random: Random) -> list[tuple[str, str]]:
    """Return all questions about a digit with their answers, in random order."""
    return [(question, answer_to(question, digit)) for question in random.sample(QUESTIONS, len(QUESTIONS))]


def pretrain_language_model(model: Llava, steps: int, random: Random) -> list[float]:
    """Train the language model on conversations about digits that are given by name, before any image."""

    def loss_at(step: int) -> Tensor:
        rows = [conversation(NAMES[digit], all_turns(digit, random)) for digit in range(10)]
        return sft_loss(model(rows), rows)

    return fit(model, loss_at, list(model.language_model.parameters().values()), steps, "language model")


def train_stage(model: Llava, data: digits.Digits, steps: int, stage: int, random: Random) -> list[float]:
    """Train stage 1 (names of digits; projector only) or stage 2 (all questions; all weights), section 4.2."""
    trained = list((model.projector if stage == 1 else model).parameters().values())
    language_parameters = model.language_model.parameters().values()
    freeze(language_parameters, stage == 1)

    def loss_at(step: int) -> Tensor:
        chosen = data.subset(random.sample(range(len(data.images)), ROWS))
        turns = [[("which", NAMES[k])] if stage == 1 else all_turns(k, random) for k in chosen.labels]
        rows = [expand_images(conversation("<image>", pairs), PATCHES) for pairs in turns]
        return sft_loss(model(rows, frozen_features(chosen.images)), rows)

    losses = fit(model, loss_at, trained, steps, f"stage {stage}")
    freeze(language_parameters, False)
    return losses


def freeze(weights: Iterable[Tensor], frozen: bool) -> None:
    """Freeze or unfreeze weights; gradients still flow through the operations of frozen weights."""
    for weight in weights:
        weight.requires_grad = not frozen


def answers(model: Llava, images: list[list[int]], question: str, max_new_tokens: int = 2) -> list[str]:
    """Return the greedy answer about each image, up to <end>."""
    rows = [expand_images(conversation("<image>", [(question, "")]), PATCHES) for _ in images]
    features, prompt_length = frozen_features(images), len(rows[0])
    with no_grad():
        for _ in range(max_new_tokens):
            logits = model(rows, features)[:, -1].tolist()
            rows = [[*row, scores.index(max(scores))] for row, scores in zip(rows, logits, strict=True)]
    texts = [row[prompt_length:] for row in rows]
    texts = [row[: row.index(END)] if END in row else row for row in texts]
    return [" ".join(WORDS[token] for token in row) for row in texts]


def accuracies(model: Llava, held_out: digits.Digits, images: list[list[int]]) -> dict[str, float]:
    """Return the accuracy of each question when these images are given."""
    accuracy = {}
    for question in QUESTIONS:
        texts = answers(model, images, question)
        correct = (text == answer_to(question, k) for text, k in zip(texts, held_out.labels, strict=True))
        accuracy[question] = sum(correct) / len(texts)
    return accuracy


def run(
    *,
    text_steps: int = TEXT_STEPS,
    first: int = FIRST_STEPS,
    second: int = SECOND_STEPS,
    held_out_digits: int = HELD_OUT,
    seed: int = 0,
) -> dict[str, float | int | dict | list[float]]:
    """Train on four fifths of the digits; print and return measurements on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    training, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    held_out = held_out.subset(list(range(held_out_digits)))
    language_model = Decoder(len(WORDS), WIDTH, DEPTH, HEADS, MLP_DIM, random)
    model = Llava(Projector(TILE * TILE + PATCHES, WIDTH, random), language_model)
    pretrain_language_model(model, text_steps, random)
    before = [list(weight.data) for weight in language_model.parameters().values()]
    first_losses = train_stage(model, training, first, 1, random)
    unchanged = before == [list(weight.data) for weight in language_model.parameters().values()]
    after_first = accuracies(model, held_out, held_out.images)
    losses = train_stage(model, training, second, 2, random)
    result = {
        "seed": seed,
        "parameters": sum(len(weight.data) for weight in model.parameters().values()),
        "language_model_unchanged": unchanged,
        "after_first": after_first,
        "accuracy": accuracies(model, held_out, held_out.images),
        # The same questions with another image: what can be answered without the image.
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


def report(result: dict, image: list[int], example: dict[str, str]) -> None:
    """Print the losses, the accuracies and one example."""
    for stage, losses in ((1, result["first_losses"]), (2, result["losses"])):
        print(f"\nstage {stage}: loss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"language model unchanged by stage 1: {result['language_model_unchanged']}")
    print("\naccuracy on held-out digits        " + "".join(f"{question:>9}" for question in QUESTIONS))
    rows = {"after stage 1": "after_first", "after stage 2": "accuracy", "after stage 2, wrong image": "blind_accuracy"}
    for name, key in rows.items():
        print(f"  {name:33}" + "".join(f"{result[key][question]:9.0%}" for question in QUESTIONS))
    print(f"  {result['parameters']:,} parameters, {result['seconds']:.0f} s\n")
    side = digits.SIDE
    print("\n".join("  " + line for line in ascii_image([image[row * side : (row + 1) * side] for row in range(side)])))
    print("  " + "   ".join(f"{question}? {answer}." for question, answer in example.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Teach a language model to answer questions about images, in pure Python."
    )
    parser.add_argument("--quick", action="store_true", help="a few steps of each stage, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and of every random draw (default 0)")
    options = parser.parse_args()
    run(
        **({"text_steps": 8, "first": 6, "second": 5, "held_out_digits": 20} if options.quick else {}),
        seed=options.seed,
    )


if __name__ == "__main__":
    run_program(main)
