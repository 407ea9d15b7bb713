"""CLIP in pure Python: two towers that learn to agree about pictures and captions (arXiv:2103.00020).

Nothing but the standard library and the course's own engine is used. The losses come first, each twice: composed of the
engine's operators, which differentiate themselves, and with the gradient derived by hand. Then two small towers of the
same build, a picture's and a caption's, are trained on the toy world, and name what they were never taught to name.

python -S -m lessons.lesson_02_clip.reference [--quick] [--loss info-nce|sigmoid] [--seed N]
"""

import argparse
import math
import time
from collections.abc import Sequence
from functools import partial
from operator import mul
from random import Random

from data.toybox.heldout import scene_at
from data.toybox.language import Description, describe, phrase
from data.toybox.raster import rasterize
from data.toybox.scene import COLOURS, PLACES, Scene
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal
from shared.stdlib.functional import cross_entropy, gelu
from shared.stdlib.nn import Embedding, LayerNorm, Linear, Module, MultiHeadAttention
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── The two losses ─────────────────────────────────────────────────────────────────────────────────────────────────────
# Row i of the images belongs to row i of the texts; all rows are unit vectors, so that a product of two is a cosine.


def unit(x: Tensor) -> Tensor:
    """Each row brought to length 1."""
    return x / (x * x).sum(-1, keepdims=True).sqrt()


def info_nce(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """CLIP's loss (figure 3): each image [batch, width] names its text among all, and each text its image.

    `log_scale` is minus the logarithm of the temperature: one over it, which is what is learned, stays positive.
    """
    # exercise 2.1: InfoNCE, pure Python
    logits = images @ texts.transpose() * log_scale.exp()
    own = range(images.shape[0])
    return (cross_entropy(logits, own) + cross_entropy(logits.transpose(), own)) * 0.5
    # end exercise


def sigmoid_loss(images: Tensor, texts: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss (arXiv:2303.15343, algorithm 1): is this pair one? asked of every pair by itself, summed per image."""
    batch = images.shape[0]
    logits = images @ texts.transpose() * log_scale.exp() + bias
    signs = Tensor([1.0 if i == j else -1.0 for i in range(batch) for j in range(batch)], (batch, batch))
    return softplus(-(logits * signs)).sum() * (1.0 / batch)


def softplus(x: Tensor) -> Tensor:
    """log(1 + eˣ) = -log sigmoid(-x), with no exponential of a positive number."""
    positive, negative = x.relu(), (-x).relu()
    return positive + ((-(positive + negative)).exp() + 1.0).log()


def info_nce_gradient(images: Tensor, texts: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By hand: how `info_nce` changes with images, texts and log_scale.

    With p the softmax along rows and q that along columns, the slope at logit (i, j) is half of
    (p + q at (i, j), less 2 where i = j) / batch: what was claimed less what is true. The rest is the product rule.
    """
    # exercise 2.2: the gradient of InfoNCE, by hand
    batch, scale = images.shape[0], math.exp(log_scale.item())
    rows, columns = images.tolist(), texts.tolist()
    logits = [[scale * sum(map(mul, image, text)) for text in columns] for image in rows]
    by_row = [shares(row) for row in logits]
    by_column = list(zip(*[shares(column) for column in zip(*logits, strict=True)], strict=True))
    slopes = [
        [0.5 * (by_row[i][j] + by_column[i][j] - 2.0 * (i == j)) / batch for j in range(batch)] for i in range(batch)
    ]
    return through_the_product(slopes, logits, rows, columns, scale)
    # end exercise


def sigmoid_gradient(
    images: Tensor, texts: Tensor, log_scale: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """By hand, for `sigmoid_loss`: the slope at logit (i, j) is (sigmoid(logit) less 1 where i = j) / batch.

    No row knows of another: that is why this loss can be computed in pieces, anywhere.
    """
    batch, scale, offset = images.shape[0], math.exp(log_scale.item()), bias.item()
    rows, columns = images.tolist(), texts.tolist()
    logits = [[scale * sum(map(mul, image, text)) for text in columns] for image in rows]
    slopes = [
        [(0.5 + 0.5 * math.tanh(0.5 * (logits[i][j] + offset)) - (i == j)) / batch for j in range(batch)]
        for i in range(batch)
    ]
    return *through_the_product(slopes, logits, rows, columns, scale), Tensor([sum(map(sum, slopes))], ())


Rows = list[list[float]]


def through_the_product(
    slopes: Rows, logits: Rows, rows: Rows, columns: Rows, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """From the slopes at logit (i, j) = scale · image i · text j to the gradients by images, texts and log_scale."""
    turned = list(zip(*slopes, strict=True))
    to_images = [[scale * sum(map(mul, slope, value)) for value in zip(*columns, strict=True)] for slope in slopes]
    to_texts = [[scale * sum(map(mul, slope, value)) for value in zip(*rows, strict=True)] for slope in turned]
    # The scale's logarithm: a step of it changes each logit by the logit itself.
    to_log_scale = sum(sum(map(mul, slope, row)) for slope, row in zip(slopes, logits, strict=True))
    return flat(to_images), flat(to_texts), Tensor([to_log_scale], ())


def shares(scores: Sequence[float]) -> list[float]:
    """Softmax of one row, with the greatest taken out, so that no exponential overflows."""
    greatest = max(scores)
    powers = [math.exp(score - greatest) for score in scores]
    return [power / sum(powers) for power in powers]


def flat(rows: Rows) -> Tensor:
    return Tensor([value for row in rows for value in row], (len(rows), len(rows[0])))


# ── Two towers of the same build ───────────────────────────────────────────────────────────────────────────────────────


class Tower(Module):
    """Tokens [batch, tokens, width] with learned positions → one transformer block → norm → tokens that know of each other."""

    def __init__(self, tokens: int, width: int, heads: int, random: Random):
        self.positions = normal((tokens, width), 0.2, random, requires_grad=True)
        self.attention_norm, self.mlp_norm, self.norm = LayerNorm(width), LayerNorm(width), LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, random)
        self.up, self.down = Linear(width, 2 * width, random), Linear(2 * width, width, random)

    def forward(self, tokens: Tensor) -> Tensor:
        x = tokens + self.positions
        x = x + self.attention(self.attention_norm(x))
        x = x + self.down(gelu(self.up(self.mlp_norm(x))))
        return self.norm(x)


class CLIP(Module):
    """Pictures and captions as unit vectors of one space; what they are compared with (scale, bias) is learned too."""

    def __init__(self, random: Random, width: int = 16, heads: int = 2, embedding: int = 16):
        self.patches = Linear(PATCH * PATCH * 3, width, random)
        self.words = Embedding(len(VOCABULARY), width, random)
        # Wide apart from the start: words that all look alike beside their positions teach the towers nothing for long.
        self.words.weight = normal(self.words.weight.shape, 0.5, random, requires_grad=True)
        self.image_encoder = Tower((SIZE // PATCH) ** 2, width, heads, random)
        self.text_encoder = Tower(LONGEST, width, heads, random)
        # No bias: what all pictures have in common should not count.
        self.image_projection = Linear(width, embedding, random, bias=False)
        self.text_projection = Linear(width, embedding, random, bias=False)
        self.log_scale = Tensor([math.log(10.0)], (), requires_grad=True)
        self.bias = Tensor([-10.0], (), requires_grad=True)  # for the sigmoid loss alone

    def encode_images(self, pictures: list[list[float]]) -> Tensor:
        return unit(self.image_projection(self.image_encoder(self.patches(cut(pictures))).mean(1)))

    def encode_texts(self, captions: list[str]) -> Tensor:
        words = [number for caption in captions for number in numbers_of(caption)]
        tokens = self.text_encoder(self.words(words).reshape(len(captions), LONGEST, -1))
        return unit(self.text_projection(tokens.mean(1)))

    def loss(self, images: Tensor, texts: Tensor, kind: str) -> Tensor:
        if kind == "sigmoid":
            return sigmoid_loss(images, texts, self.log_scale, self.bias)
        return info_nce(images, texts, self.log_scale)


# ── Pictures and captions of the toy world ─────────────────────────────────────────────────────────────────────────────

SIZE, PATCH = 24, 8
TRUTHS = [(colour, place) for colour in COLOURS for place in PLACES]


def said(colour: str, place: str) -> str:
    """The caption of something of that colour in that place: "a red thing at the top left"."""
    return phrase(Description(colour=colour, place=place))


VOCABULARY = {
    word: number for number, word in enumerate(["", *sorted({w for truth in TRUTHS for w in said(*truth).split()})])
}
LONGEST = max(len(said(*truth).split()) for truth in TRUTHS)


def numbers_of(caption: str) -> list[int]:
    """The words' numbers, filled up with the empty word."""
    words = caption.split()
    return [VOCABULARY[word] for word in words] + [0] * (LONGEST - len(words))


def cut(pictures: list[list[float]]) -> Tensor:
    """[batch, patches, PATCH · PATCH · 3]: squares in reading order (lesson 1)."""
    grid = SIZE // PATCH
    pixels = Tensor([value for picture in pictures for value in picture], (len(pictures), grid, PATCH, grid, PATCH * 3))
    return pixels.permute(0, 1, 3, 2, 4).reshape(len(pictures), grid * grid, PATCH * PATCH * 3)


def look(scene: Scene) -> list[float]:
    """A scene's picture as numbers around 0."""
    return [value / 64.0 - 3.5 for value in rasterize(scene, SIZE)]


def caption(scene: Scene) -> str:
    return phrase(describe(scene.objects[0], ("colour", "place")))


def truth(scene: Scene) -> tuple[str, str]:
    return scene.objects[0].colour, scene.objects[0].place


# ── Learning, and naming without having been taught to ─────────────────────────────────────────────────────────────────

BATCH = 16
STEPS, QUICK_STEPS = 640, 50
LEARNING_RATE = 4e-3


def unique_batches(scenes: list[Scene], steps: int, random: Random) -> list[list[Scene]]:
    """Batches of scenes no two of which share a caption: a duplicate would be punished for being right."""
    waiting: list[Scene] = []
    batches = []
    while len(batches) < steps:
        batch: dict[str, Scene] = {}
        kept = []
        while len(batch) < BATCH:
            if not waiting:
                waiting = random.sample(scenes, len(scenes))
            scene = waiting.pop()
            if caption(scene) in batch:
                kept.append(scene)
            else:
                batch[caption(scene)] = scene
        waiting += kept
        batches.append(list(batch.values()))
    return batches


def fit(model: CLIP, scenes: list[Scene], steps: int, loss: str, random: Random) -> list[float]:
    batches = unique_batches(scenes, steps, random)

    def loss_at(step: int) -> Tensor:
        images = model.encode_images([look(scene) for scene in batches[step]])
        return model.loss(images, model.encode_texts([caption(scene) for scene in batches[step]]), loss)

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="CLIP")


def cosines(model: CLIP, scenes: list[Scene]) -> list[list[float]]:
    """[scenes, truths]: each picture's cosine with each of the 72 captions."""
    with no_grad():
        texts = model.encode_texts([said(*truth) for truth in TRUTHS])
        return (model.encode_images([look(scene) for scene in scenes]) @ texts.transpose()).tolist()


def share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def run(*, steps: int = STEPS, loss: str = "info-nce", seed: int = 0) -> dict[str, float | int | str | list[float]]:
    """Train on scenes of one thing; print and return what it names in scenes whose colour and shape never met before."""
    start, random = time.perf_counter(), Random(seed)
    training = [scene_at("train", seed, number, (1, 1)) for number in range(steps * BATCH)]
    test = [scene_at("test", seed, number, (1, 1)) for number in range(200)]
    model = CLIP(random)
    losses = fit(model, training, steps, loss, random)
    scores = cosines(model, test)
    named = [TRUTHS[row.index(max(row))] for row in scores]
    captions = list(zip(*scores, strict=True))
    found = {truth: max(range(len(test)), key=captions[number].__getitem__) for number, truth in enumerate(TRUTHS)}
    right = list(map(truth, test))
    asked = [wanted for wanted in TRUTHS if wanted in right]
    result = {
        "seed": seed,
        "steps": steps,
        "loss": loss,
        "parameters": sum(len(tensor.data) for tensor in model.parameters().values()),
        "colour": share([name[0] == own[0] for name, own in zip(named, right, strict=True)]),
        "place": share([name[1] == own[1] for name, own in zip(named, right, strict=True)]),
        "both": share([name == own for name, own in zip(named, right, strict=True)]),
        "retrieval": share([right[found[wanted]] == wanted for wanted in asked]),
        "temperature": math.exp(-model.log_scale.item()),
        "seconds": time.perf_counter() - start,
        "losses": losses,
    }
    report(result, test[0], named[0], scores[0])
    return result


def report(result: dict, scene: Scene, named: tuple[str, str], scores: list[float]) -> None:
    losses, chance = result["losses"], 1 / len(TRUTHS)
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}   temperature {result['temperature']:.3f}")
    print(f"\nzero-shot: 200 held-out pictures, each named by the nearest of {len(TRUTHS)} captions (colour × place)")
    print(f"  colour right       {result['colour']:6.1%}   (chance {1 / len(COLOURS):.1%})")
    print(f"  place right        {result['place']:6.1%}   (chance {1 / len(PLACES):.1%})")
    print(f"  both right         {result['both']:6.1%}   (chance {chance:.1%})")
    print(f"  and back: a caption's nearest picture fits it {result['retrieval']:6.1%}")
    print(f"  ({result['parameters']:,} parameters, {result['seconds']:.0f} s)")
    print(
        f"\n{caption(scene)!r}, named {said(*named)!r}; at the right, how near it is to “{phrase(Description(colour=named[0]))} …” in each place:"
    )
    gray = rasterize(scene, SIZE)[1::3]
    dark = [[255.0 - gray[row * SIZE + column] for column in range(SIZE)] for row in range(0, SIZE, 1)]
    of_colour = [math.exp(10 * score) for score, truth in zip(scores, TRUTHS, strict=True) if truth[0] == named[0]]
    near = [[of_colour[row // PATCH * 3 + column // PATCH] for column in range(SIZE)] for row in range(SIZE)]
    print("\n".join(f"  {left}   {right}" for left, right in zip(ascii_image(dark), ascii_image(near), strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small CLIP on the toy world in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--loss", choices=("info-nce", "sigmoid"), default="info-nce", help="(default info-nce)")
    parser.add_argument("--seed", type=int, default=0, help="the scenes, and every random draw (default 0)")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, loss=options.loss, seed=options.seed)


if __name__ == "__main__":
    main()
