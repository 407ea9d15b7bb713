"""CLIP in pure Python: two encoders trained to map matching images and captions to similar vectors (arXiv:2103.00020).

Only the standard library and the course's own engine are used. First come the losses, each in two forms: composed of
the engine's differentiable operators, and with a manually derived gradient. Then two small encoders of the same
architecture, one for images and one for captions, are trained on the toy world and classify unseen combinations.

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
from data.toybox.scene import COLORS, PLACES, Scene
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal
from shared.stdlib.functional import cross_entropy, gelu
from shared.stdlib.nn import Embedding, LayerNorm, Linear, Module, MultiHeadAttention
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── The two losses ────────────────────────────────────────────────────────────────────────────────────────────────────
# Row i of the images matches row i of the texts. All rows are unit vectors, so a dot product is a cosine similarity.


def unit_vectors(x: Tensor) -> Tensor:
    """Normalize each row to length 1."""
    return x / (x * x).sum(-1, keepdims=True).sqrt()


def info_nce(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Return CLIP's loss (figure 3) for vectors [batch, width]: the mean of image → text and text → image.

    `log_scale` is the logarithm of one over the temperature, so that the learned scale stays positive.
    """
    # exercise 2.1: InfoNCE, pure Python
    logits = images @ texts.transpose() * log_scale.exp()
    labels = range(images.shape[0])
    return (cross_entropy(logits, labels) + cross_entropy(logits.transpose(), labels)) * 0.5
    # end exercise


def sigmoid_loss(images: Tensor, texts: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Return SigLIP's loss: binary cross-entropy of each pair, summed per image (arXiv:2303.15343, algorithm 1)."""
    batch = images.shape[0]
    logits = images @ texts.transpose() * log_scale.exp() + bias
    signs = Tensor([1.0 if i == j else -1.0 for i in range(batch) for j in range(batch)], (batch, batch))
    return softplus(-(logits * signs)).sum() * (1.0 / batch)


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + eˣ) = −log sigmoid(−x), without the exponential of a positive number."""
    positive, negative = x.relu(), (-x).relu()
    return positive + ((-(positive + negative)).exp() + 1.0).log()


Rows = list[list[float]]


def info_nce_gradient(images: Tensor, texts: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the manually derived gradients of `info_nce` with respect to images, texts and log_scale.

    With p the softmax over rows and q the softmax over columns, the gradient at logit (i, j) is
    0.5 · (p[i, j] + q[i, j] − 2 · (i = j)) / batch. The rest follows from the product rule.
    """
    # exercise 2.2: the gradient of InfoNCE, by hand
    batch, scale = images.shape[0], math.exp(log_scale.item())
    rows, columns = images.tolist(), texts.tolist()
    logits = [[scale * sum(map(mul, image, text)) for text in columns] for image in rows]
    by_row = [softmax(row) for row in logits]
    by_column = list(zip(*[softmax(column) for column in zip(*logits, strict=True)], strict=True))
    gradients = [
        [0.5 * (by_row[i][j] + by_column[i][j] - 2.0 * (i == j)) / batch for j in range(batch)] for i in range(batch)
    ]
    return backpropagate_logits(gradients, logits, rows, columns, scale)
    # end exercise


def sigmoid_gradient(
    images: Tensor, texts: Tensor, log_scale: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the manually derived gradients of `sigmoid_loss` with respect to its four arguments.

    The gradient at logit (i, j) is (sigmoid(logit) − (i = j)) / batch. It does not depend on other pairs, which is why
    this loss can be computed in parts.
    """
    batch, scale, offset = images.shape[0], math.exp(log_scale.item()), bias.item()
    rows, columns = images.tolist(), texts.tolist()
    logits = [[scale * dot for dot in (sum(map(mul, image, text)) for text in columns)] for image in rows]
    gradients = [
        [(0.5 + 0.5 * math.tanh(0.5 * (logits[i][j] + offset)) - (i == j)) / batch for j in range(batch)]
        for i in range(batch)
    ]
    bias_gradient = Tensor([sum(map(sum, gradients))], ())
    return *backpropagate_logits(gradients, logits, rows, columns, scale), bias_gradient


def backpropagate_logits(
    gradients: Rows, logits: Rows, rows: Rows, columns: Rows, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of images, texts and log_scale from those of the logits, scale · image i · text j."""
    transposed = list(zip(*gradients, strict=True))
    to_images = [[scale * sum(map(mul, row, value)) for value in zip(*columns, strict=True)] for row in gradients]
    to_texts = [[scale * sum(map(mul, row, value)) for value in zip(*rows, strict=True)] for row in transposed]
    # The derivative of a logit with respect to the scale's logarithm is the logit itself.
    to_log_scale = sum(sum(map(mul, gradient, row)) for gradient, row in zip(gradients, logits, strict=True))
    return from_rows(to_images), from_rows(to_texts), Tensor([to_log_scale], ())


def softmax(scores: Sequence[float]) -> list[float]:
    """Return the softmax of one row, with the maximum subtracted so that no exponential overflows."""
    maximum = max(scores)
    powers = [math.exp(score - maximum) for score in scores]
    return [power / sum(powers) for power in powers]


def from_rows(rows: Rows) -> Tensor:
    return Tensor([value for row in rows for value in row], (len(rows), len(rows[0])))


# ── Two encoders of the same architecture ─────────────────────────────────────────────────────────────────────────────


class Encoder(Module):
    """Tokens [batch, tokens, width] with learned positions → one transformer block → LayerNorm, of the same shape."""

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
    """Encode images and captions as unit vectors of one space; the scale and the bias of the losses are learned too."""

    def __init__(self, random: Random, width: int = 16, heads: int = 2, embedding: int = 16):
        self.patches = Linear(PATCH * PATCH * 3, width, random)
        self.words = Embedding(len(VOCABULARY), width, random)
        # Larger than usual: if words differ little compared with their positions, learning starts slowly.
        self.words.weight = normal(self.words.weight.shape, 0.5, random, requires_grad=True)
        self.image_encoder = Encoder((SIZE // PATCH) ** 2, width, heads, random)
        self.text_encoder = Encoder(LONGEST, width, heads, random)
        # No bias: what all images have in common is irrelevant.
        self.image_projection = Linear(width, embedding, random, bias=False)
        self.text_projection = Linear(width, embedding, random, bias=False)
        self.log_scale = Tensor([math.log(10.0)], (), requires_grad=True)
        self.bias = Tensor([-10.0], (), requires_grad=True)  # used by the sigmoid loss only

    def encode_images(self, images: Rows) -> Tensor:
        return unit_vectors(self.image_projection(self.image_encoder(self.patches(patchify(images))).mean(1)))

    def encode_texts(self, captions: list[str]) -> Tensor:
        token_ids = [token_id for caption in captions for token_id in tokenize(caption)]
        tokens = self.text_encoder(self.words(token_ids).reshape(len(captions), LONGEST, -1))
        return unit_vectors(self.text_projection(tokens.mean(1)))

    def loss(self, images: Tensor, texts: Tensor, name: str) -> Tensor:
        if name == "sigmoid":
            return sigmoid_loss(images, texts, self.log_scale, self.bias)
        return info_nce(images, texts, self.log_scale)


# ── Images and captions of the toy world ──────────────────────────────────────────────────────────────────────────────

SIZE, PATCH = 24, 8
CLASSES = [(color, place) for color in COLORS for place in PLACES]


def class_caption(color: str, place: str) -> str:
    """Return the caption of a class: a color and a place."""
    return phrase(Description(color=color, place=place))


WORDS = sorted({word for label in CLASSES for word in class_caption(*label).split()})
VOCABULARY = {word: token_id for token_id, word in enumerate(["", *WORDS])}
LONGEST = max(len(class_caption(*label).split()) for label in CLASSES)


def tokenize(caption: str) -> list[int]:
    """Return the token ids of the words, padded with the empty word to the longest caption."""
    words = caption.split()
    return [VOCABULARY[word] for word in words] + [0] * (LONGEST - len(words))


def patchify(images: Rows) -> Tensor:
    """Return [batch, patches, PATCH · PATCH · 3]: patches in row-major order (lesson 1)."""
    grid = SIZE // PATCH
    pixels = Tensor([value for image in images for value in image], (len(images), grid, PATCH, grid, PATCH * 3))
    return pixels.permute(0, 1, 3, 2, 4).reshape(len(images), grid * grid, PATCH * PATCH * 3)


def scene_pixels(scene: Scene) -> list[float]:
    """Render a scene as values around 0."""
    return [value / 64.0 - 3.5 for value in rasterize(scene, SIZE)]


def scene_caption(scene: Scene) -> str:
    return phrase(describe(scene.objects[0], ("color", "place")))


def scene_class(scene: Scene) -> tuple[str, str]:
    return scene.objects[0].color, scene.objects[0].place


# ── Training and zero-shot classification ─────────────────────────────────────────────────────────────────────────────

BATCH = 16
STEPS, QUICK_STEPS = 640, 50
LEARNING_RATE = 4e-3


def unique_batches(scenes: list[Scene], steps: int, random: Random) -> list[list[Scene]]:
    """Return batches of scenes without duplicate captions, which the loss would treat as wrong matches."""
    queue: list[Scene] = []
    batches = []
    while len(batches) < steps:
        batch: dict[str, Scene] = {}
        duplicates = []
        while len(batch) < BATCH:
            if not queue:
                queue = random.sample(scenes, len(scenes))
            scene = queue.pop()
            if scene_caption(scene) in batch:
                duplicates.append(scene)
            else:
                batch[scene_caption(scene)] = scene
        queue += duplicates
        batches.append(list(batch.values()))
    return batches


def fit(model: CLIP, scenes: list[Scene], steps: int, loss: str, random: Random) -> list[float]:
    """Train the model and return the loss of each step."""
    batches = unique_batches(scenes, steps, random)

    def loss_at(step: int) -> Tensor:
        images = model.encode_images([scene_pixels(scene) for scene in batches[step]])
        return model.loss(images, model.encode_texts([scene_caption(scene) for scene in batches[step]]), loss)

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="CLIP")


def cosine_similarities(model: CLIP, scenes: list[Scene]) -> Rows:
    """Return [scenes, classes]: the cosine similarity of each image and each of the 72 captions."""
    with no_grad():
        texts = model.encode_texts([class_caption(*label) for label in CLASSES])
        return (model.encode_images([scene_pixels(scene) for scene in scenes]) @ texts.transpose()).tolist()


def fraction(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def run(*, steps: int = STEPS, loss: str = "info-nce", seed: int = 0) -> dict[str, float | int | str | list[float]]:
    """Train on scenes of one object; print and return zero-shot scores on unseen color–shape combinations."""
    start, random = time.perf_counter(), Random(seed)
    training = [scene_at("train", seed, number, (1, 1)) for number in range(steps * BATCH)]
    test = [scene_at("test", seed, number, (1, 1)) for number in range(200)]
    model = CLIP(random)
    losses = fit(model, training, steps, loss, random)
    scores = cosine_similarities(model, test)
    predictions = [CLASSES[row.index(max(row))] for row in scores]
    columns = list(zip(*scores, strict=True))
    best = {label: max(range(len(test)), key=columns[index].__getitem__) for index, label in enumerate(CLASSES)}
    labels = list(map(scene_class, test))
    queries = [label for label in CLASSES if label in labels]
    pairs = list(zip(predictions, labels, strict=True))
    result = {
        "seed": seed,
        "steps": steps,
        "loss": loss,
        "parameters": sum(len(tensor.data) for tensor in model.parameters().values()),
        "color": fraction([prediction[0] == label[0] for prediction, label in pairs]),
        "place": fraction([prediction[1] == label[1] for prediction, label in pairs]),
        "both": fraction([prediction == label for prediction, label in pairs]),
        "retrieval": fraction([labels[best[query]] == query for query in queries]),
        "temperature": math.exp(-model.log_scale.item()),
        "seconds": time.perf_counter() - start,
        "losses": losses,
    }
    print_scores(result)
    print_example(test[0], predictions[0], scores[0])
    return result


def print_scores(result: dict) -> None:
    losses = result["losses"]
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}   temperature {result['temperature']:.3f}")
    print(
        f"\nzero-shot: 200 held-out images, classified by the most similar of {len(CLASSES)} captions (color × place)"
    )
    print(f"  color correct      {result['color']:6.1%}   (chance {1 / len(COLORS):.1%})")
    print(f"  place correct      {result['place']:6.1%}   (chance {1 / len(PLACES):.1%})")
    print(f"  both correct       {result['both']:6.1%}   (chance {1 / len(CLASSES):.1%})")
    print(f"  retrieval: the image most similar to a caption matches it {result['retrieval']:6.1%}")
    print(f"  ({result['parameters']:,} parameters, {result['seconds']:.0f} s)")


def print_example(scene: Scene, prediction: tuple[str, str], scores: list[float]) -> None:
    """Print an image and, beside it, its similarity to the captions of the predicted color in each place."""
    color = phrase(Description(color=prediction[0]))
    print(f"\n{scene_caption(scene)!r}, classified as {class_caption(*prediction)!r}")
    print(f"right: similarity to “{color} …” in each place")
    green = rasterize(scene, SIZE)[1::3]
    darkness = [[255.0 - green[row * SIZE + column] for column in range(SIZE)] for row in range(SIZE)]
    by_place = [math.exp(10 * score) for score, label in zip(scores, CLASSES, strict=True) if label[0] == prediction[0]]
    similarity = [[by_place[row // PATCH * 3 + column // PATCH] for column in range(SIZE)] for row in range(SIZE)]
    for left, right in zip(ascii_image(darkness), ascii_image(similarity), strict=True):
        print(f"  {left}   {right}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small CLIP on the toy world in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--loss", choices=("info-nce", "sigmoid"), default="info-nce", help="(default info-nce)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes and all random draws (default 0)")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, loss=options.loss, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
