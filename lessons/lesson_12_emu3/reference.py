"""Guidance and preferences in pure Python, where the exact answers are computable (arXiv:2409.18869, 2207.12598).

An image has 2 × 3 codes of 0 or 1, so that there are 64 images and every probability is a sum. A network learns to
predict the next code with and without the label. Guided sampling is compared with its exact distribution, and direct
preference optimization with its closed form:

    python -S -m lessons.lesson_12_emu3.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from random import Random
from statistics import fmean

from shared.stdlib.autograd import no_grad
from shared.stdlib.functional import cross_entropy, gelu
from shared.stdlib.nn import Linear, Module
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.shapes import rows_of
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

Image = tuple[int, ...]
NextProbabilities = Callable[[Image, int | None], list[float]]
"""From the codes so far and a label, or None for no label, to the probabilities of the next code."""

# ── A world in which every probability is a sum ───────────────────────────────────────────────────────────────────────

ROWS, COLUMNS, CODES = 2, 3, 2
LENGTH, NOISE = ROWS * COLUMNS, 0.1  # the probability that a code of an image differs from its template's
IMAGES: list[Image] = list(product(range(CODES), repeat=LENGTH))
LABELS = ("rows", "columns", "checks")
TEMPLATES: list[list[Image]] = [
    [(1, 1, 1, 0, 0, 0), (0, 0, 0, 1, 1, 1)],
    [(1, 0, 1, 1, 0, 1), (0, 1, 0, 0, 1, 0)],
    [(1, 0, 1, 0, 1, 0), (0, 1, 0, 1, 0, 1)],
]


def prefix_probability(codes: Image, label: int | None) -> float:
    """Return p(codes | label) of the first codes of an image; without a label, the mean over the labels."""
    if label is None:
        return fmean(prefix_probability(codes, each) for each in range(len(LABELS)))
    matches = [sum(map(int.__eq__, codes, template)) for template in TEMPLATES[label]]
    return fmean((1 - NOISE) ** same * NOISE ** (len(codes) - same) for same in matches)


def exact_next(codes: Image, label: int | None) -> list[float]:
    """Return the exact probabilities of the next code."""
    return [prefix_probability((*codes, code), label) / prefix_probability(codes, label) for code in range(CODES)]


def draw_image(label: int, random: Random) -> Image:
    """Return a random image of a label."""
    template = random.choice(TEMPLATES[label])
    return tuple(1 - code if random.random() < NOISE else code for code in template)


# ── An image as tokens (arXiv:2409.18869, section 2.3) ────────────────────────────────────────────────────────────────

END_OF_LINE, END_OF_FRAME, END, EOS = range(CODES, CODES + 4)


def frame_tokens(frames: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    """Return frames of rows of codes as tokens: each row ends with END_OF_LINE, each frame with END_OF_FRAME."""
    return [
        token for rows in frames for row in [*([*row, END_OF_LINE] for row in rows), [END_OF_FRAME]] for token in row
    ]


def token_kinds(frames: int, rows: int, columns: int) -> list[int | None]:
    """Return the token that is due at each place after [SOT]; None where any code may stand."""
    blank: list = [[[None] * columns] * rows] * frames
    return [*frame_tokens(blank), END, EOS]


# ── Classifier-free guidance (arXiv:2207.12598) ───────────────────────────────────────────────────────────────────────


def log_softmax(logits: Sequence[float]) -> list[float]:
    """Return log-probabilities."""
    largest = max(logits)
    total = largest + math.log(sum(math.exp(logit - largest) for logit in logits))
    return [logit - total for logit in logits]


def softmax(logits: Sequence[float]) -> list[float]:
    """Return probabilities."""
    return list(map(math.exp, log_softmax(logits)))


def guide(conditional: Sequence[float], unconditional: Sequence[float], scale: float) -> list[float]:
    """Return unconditional + scale · (conditional − unconditional) of log-probabilities."""
    pairs = zip(log_softmax(conditional), log_softmax(unconditional), strict=True)
    return [without + scale * (labeled - without) for labeled, without in pairs]


def guided_next(next_of: NextProbabilities, codes: Image, label: int, scale: float) -> list[float]:
    """Return the guided probabilities of the next code."""
    conditional, unconditional = ([math.log(p) for p in next_of(codes, each)] for each in (label, None))
    return softmax(guide(conditional, unconditional, scale))


def distribution(next_of: NextProbabilities, label: int, scale: float) -> list[float]:
    """Return the probability that guided sampling gives each of the 64 images."""
    probabilities: dict[Image, float] = {(): 1.0}
    for _ in range(LENGTH):
        probabilities = {
            (*codes, code): p * q
            for codes, p in probabilities.items()
            for code, q in enumerate(guided_next(next_of, codes, label, scale))
        }
    return [probabilities[image] for image in IMAGES]


def faithfulness(probabilities: Sequence[float], label: int) -> float:
    """Return the mean posterior probability of the label, over images that are drawn from a distribution."""
    posteriors = [prefix_probability(x, label) / prefix_probability(x, None) / len(LABELS) for x in IMAGES]
    return sum(map(float.__mul__, probabilities, posteriors))


def diversity(probabilities: Sequence[float]) -> float:
    """Return exp(entropy): the effective number of different images."""
    return math.exp(-sum(p * math.log(p) for p in probabilities if p > 0))


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the total variation distance of two distributions, from 0 to 1."""
    return sum(abs(p - q) for p, q in zip(one, other, strict=True)) / 2


# ── A network that predicts codes with and without a label ────────────────────────────────────────────────────────────

FEATURES = len(LABELS) + 1 + CODES * LENGTH


def features_of(codes: Image, label: int | None) -> list[float]:
    """Return the inputs of the network: the label or its absence, and the codes so far, one-hot."""
    features = [0.0] * FEATURES
    features[len(LABELS) if label is None else label] = 1.0
    for place, code in enumerate(codes):
        features[len(LABELS) + 1 + CODES * place + code] = 1.0
    return features


class Predictor(Module):
    """Codes so far and labels → logits of the next code [rows, codes]: two linear layers and a GELU."""

    def __init__(self, width: int, random: Random):
        self.first, self.second = Linear(FEATURES, width, random), Linear(width, CODES, random)

    def forward(self, prefixes: Sequence[tuple[Image, int | None]]) -> Tensor:
        values = [value for codes, label in prefixes for value in features_of(codes, label)]
        return self.second(gelu(self.first(Tensor(values, (len(prefixes), FEATURES)))))

    def next_of(self) -> NextProbabilities:
        """Return the network's probabilities of the next code, computed once for every input there is."""
        prefixes = [codes for length in range(LENGTH) for codes in product(range(CODES), repeat=length)]
        inputs = list(product(prefixes, (*range(len(LABELS)), None)))
        with no_grad():
            rows = rows_of(self(inputs).data, CODES)
        table = {each: softmax(row) for each, row in zip(inputs, rows, strict=True)}
        return lambda codes, label: table[codes, label]


def next_code_loss(model: Predictor, batch: int, drop: float, random: Random) -> Tensor:
    """Return the mean cross-entropy of the codes of random images; a label is left out with probability `drop`."""
    prefixes: list[tuple[Image, int | None]] = []
    targets = []
    for _ in range(batch):
        label = random.randrange(len(LABELS))
        image = draw_image(label, random)
        condition = None if random.random() < drop else label
        prefixes += [(image[:place], condition) for place in range(LENGTH)]
        targets += image
    return cross_entropy(model(prefixes), targets)


def draw(next_of: NextProbabilities, label: int, scale: float, random: Random) -> list[int]:
    """Sample an image token by token: codes where they may stand, else the token that is due."""
    tokens: list[int] = []
    codes: Image = ()
    for due in token_kinds(1, ROWS, COLUMNS):
        if due is None:
            due = random.choices(range(CODES), guided_next(next_of, codes, label, scale))[0]
            codes = (*codes, due)
        tokens.append(due)
    return tokens


# ── Direct preference optimization (arXiv:2305.18290) ─────────────────────────────────────────────────────────────────


def sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(−x))."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))


def dpo_loss(
    preferred: float, rejected: float, reference_preferred: float, reference_rejected: float, beta: float
) -> float:
    """Return −log σ(β · ((preferred − its reference) − (rejected − its reference))) of log-probabilities (eq. 7)."""
    return -math.log(sigmoid(beta * (preferred - reference_preferred - rejected + reference_rejected)))


def optimize_preferences(
    reference: Sequence[float], rewards: Sequence[float], beta: float, steps: int, rate: float = 4.0
) -> list[float]:
    """Return the distribution that minimizes DPO's loss over all pairs of images that the reference draws.

    rewards  of each image: it is preferred to another one with probability σ(difference of rewards)

    The derivative of the mean loss with respect to logit i, divided by the reference's probability of image i, is
    2β Σ_j p_j (σ(β (h_i − h_j)) − σ(r_i − r_j)), where h is the logit minus the reference's: it is 0 at h = r / β.
    """
    gains = [0.0] * len(reference)  # h: differences of the logits from the reference's
    targets = [sum(p * sigmoid(r - other) for p, other in zip(reference, rewards, strict=True)) for r in rewards]
    for _ in range(steps):
        wins = [sum(p * sigmoid(beta * (h - other)) for p, other in zip(reference, gains, strict=True)) for h in gains]
        gains = [h - rate / beta * (win - target) for h, win, target in zip(gains, wins, targets, strict=True)]
    return softmax([math.log(p) + h for p, h in zip(reference, gains, strict=True)])


def closed_form(reference: Sequence[float], rewards: Sequence[float], beta: float) -> list[float]:
    """Return p(x) ∝ reference(x) · exp(reward(x) / β): the optimum of reward − β · KL (eq. 4)."""
    return softmax([math.log(p) + r / beta for p, r in zip(reference, rewards, strict=True)])


# ── Training and measuring ────────────────────────────────────────────────────────────────────────────────────────────

WIDTH, BATCH, STEPS, QUICK_STEPS = 32, 32, 2000, 20
LEARNING_RATE, DROP = 2e-2, 0.2
SCALES, BETA, DPO_STEPS = (0.0, 1.0, 2.0, 4.0), 0.5, 200


def run(*, steps: int = STEPS, seed: int = 0) -> dict:
    """Train the predictor; print and return how guided sampling and DPO compare with the exact answers."""
    start, random = time.perf_counter(), Random(seed)
    model = Predictor(WIDTH, random)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99))
    losses = train(model, lambda _: next_code_loss(model, BATCH, DROP, random), optimizer, steps, schedule=schedule)
    learned, guidance = model.next_of(), []
    for scale in SCALES:
        pairs = [(distribution(exact_next, label, scale), distribution(learned, label, scale)) for label in range(3)]
        row = {"scale": scale, "distance": fmean(distance(*pair) for pair in pairs)}
        for place, name in enumerate(("exact", "learned")):
            row[f"faithfulness_{name}"] = fmean(faithfulness(pair[place], label) for label, pair in enumerate(pairs))
            row[f"diversity_{name}"] = fmean(diversity(pair[place]) for pair in pairs)
        guidance.append(row)
    reference, rewards = distribution(learned, 0, 1.0), [float(sum(image)) for image in IMAGES]
    preferred = optimize_preferences(reference, rewards, BETA, DPO_STEPS)
    result = {
        "seed": seed,
        "losses": losses,
        "guidance": guidance,
        "reward_before": sum(map(float.__mul__, reference, rewards)),
        "reward_after": sum(map(float.__mul__, preferred, rewards)),
        "dpo_distance": distance(preferred, closed_form(reference, rewards, BETA)),
        "drawn": [draw(learned, label, 2.0, random) for label in range(3)],
        "seconds": time.perf_counter() - start,
    }
    report(result)
    return result


def report(result: dict) -> None:
    """Print the losses, some images and the comparisons."""
    losses = result["losses"]
    print(f"cross-entropy of the next code  {sparkline(losses, 40)}  {losses[0]:.3f} → {losses[-1]:.3f} nats")
    print("\nimages drawn with guidance 2, as tokens (| ends a row, / the frame):")
    names = {0: ".", 1: "#", END_OF_LINE: "|", END_OF_FRAME: "/", END: " [EOV]", EOS: " [EOS]"}
    for label, tokens in zip(LABELS, result["drawn"], strict=True):
        print(f"  {label:8} {''.join(names[token] for token in tokens)}")
    print("\nguidance  faithfulness     effective images   distance of learned")
    print("scale     exact  learned   exact  learned     from exact")
    for row in result["guidance"]:
        values = [row[f"{name}_{of}"] for name in ("faithfulness", "diversity") for of in ("exact", "learned")]
        print("{:<9g} {:.3f}  {:.3f}     {:5.1f}  {:5.1f}       {:.3f}".format(row["scale"], *values, row["distance"]))
    print(f"\nDPO for images of label {LABELS[0]} with many ones, β = {BETA}:")
    print(f"  ones per image {result['reward_before']:.2f} → {result['reward_after']:.2f}")
    print(f"  distance from the closed form {result['dpo_distance']:.4f}\n{result['seconds']:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Guidance and DPO for images of six codes, in pure Python.")
    parser.add_argument("--quick", action="store_true", help="few steps, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random draw (default 0)")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
