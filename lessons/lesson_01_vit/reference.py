"""A Vision Transformer in pure Python (Dosovitskiy et al., arXiv:2010.11929).

First, tokens, parameters and FLOPs of published models are computed from their sizes. Then the model follows, part by
part as in section 3.1. Then it is trained on handwritten digits, in about a minute, with nothing installed:

    python -S -m lessons.lesson_01_vit.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from dataclasses import dataclass
from functools import partial
from operator import eq
from random import Random

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal
from shared.stdlib.functional import concatenate, cross_entropy, gelu, softmax
from shared.stdlib.nn import LayerNorm, Linear, Module
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import shuffled_batches, train

# ── Geometry: sizes, parameters and FLOPs of a model ──────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Geometry:
    """Describe the sizes of a Vision Transformer and the options of its descendants."""

    name: str
    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_dim: int
    channels: int = 3
    classes: int = 0  # 0: no head, the last norm is the output
    class_token: bool = True
    patch_bias: bool = True
    pre_norm: bool = False  # CLIP: a norm before the first block
    mask_token: bool = False  # DINOv2: replaces masked patches in pretraining
    layer_scale: bool = False  # DINOv2: a learned factor on each residual branch
    swiglu: bool = False  # DINOv2-g: a gated MLP
    attention_pooling: bool = False  # SigLIP: cross-attention with a learned query, then an MLP

    @property
    def grid(self) -> int:
        """Patches per side; remaining pixels that do not fill a patch are ignored."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        return self.grid**2 + self.class_token

    def parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part."""
        width, norm, patch = self.width, 2 * self.width, self.channels * self.patch_size**2
        mlp = (3 if self.swiglu else 2) * width * self.mlp_dim + (1 + self.swiglu) * self.mlp_dim + width
        attention = 4 * (width + 1) * width
        pooling = width + attention + norm + mlp if self.attention_pooling else 0
        return {
            "patches": patch * width + self.patch_bias * width,
            "positions": (self.tokens + self.class_token + self.mask_token) * width,
            "attention": self.depth * (attention + self.layer_scale * width),
            "MLP": self.depth * (mlp + self.layer_scale * width),
            "norms": (2 * self.depth + 1 + self.pre_norm) * norm,
            "head": pooling + self.classes * (width + 1),
        }

    def flops(self) -> int:
        """Return the FLOPs per image: multiply-adds count as 2; norms, softmax and biases are left out."""
        width, tokens, patch = self.width, self.tokens, self.channels * self.patch_size**2
        mlp = (3 if self.swiglu else 2) * width * self.mlp_dim
        attention = tokens * 4 * width**2 + 2 * tokens**2 * width  # four projections; scores and weighted sums
        block = attention + tokens * mlp
        pooling = tokens * 2 * width**2 + 2 * width**2 + 2 * tokens * width + mlp
        products = self.grid**2 * patch * width + self.depth * block + self.classes * width
        return 2 * (products + self.attention_pooling * pooling)


PUBLISHED = (
    Geometry("ViT-B/16", 224, 16, 768, 12, 12, 3072, classes=1000),
    Geometry("CLIP L/14@336", 336, 14, 1024, 24, 16, 4096, patch_bias=False, pre_norm=True),
    Geometry("DINOv2 g/14", 518, 14, 1536, 40, 24, 4096, mask_token=True, layer_scale=True, swiglu=True),
    Geometry("SigLIP SO/14", 384, 14, 1152, 27, 16, 4304, class_token=False, attention_pooling=True),
)
DIGITS = Geometry("digits", 8, 4, 24, 2, 4, 48, channels=1, classes=10)


def geometry_table(models: tuple[Geometry, ...]) -> str:
    """Return a table with one column per model: sequence, parameters by part, FLOPs."""
    rows = [("", [model.name for model in models])]
    rows += [("image, patch", [f"{model.image_size}, {model.patch_size}" for model in models])]
    rows += [("grid", [f"{model.grid}×{model.grid}" for model in models])]
    rows += [("tokens", [f"{model.tokens:,}" for model in models])]
    rows += [(part, [f"{model.parameters()[part]:,}" for model in models]) for part in models[0].parameters()]
    rows += [("all parameters", [f"{sum(model.parameters().values()):,}" for model in models])]
    rows += [("MFLOPs per image", [f"{model.flops() / 1e6:,.1f}" for model in models])]
    lines = [f"{title:16}" + "".join(f"{cell:>15}" for cell in cells) for title, cells in rows]
    return "\n".join([*lines, "(a multiply-add counts as 2 operations; 1 MFLOP is a million operations)"])


# ── Parts (section 3.1) ───────────────────────────────────────────────────────────────────────────────────────────────


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images [batch, channels, height, width] into patches [batch, patches, patch_size² · channels].

    Patches and their pixels are in row-major order. In a patch, channel c of the pixel at (row, column) has index
    (row · patch_size + column) · channels + c.
    Raises ValueError when the sides are not multiples of `patch_size`.
    """
    batch, channels, height, width = images.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"image {height}×{width} does not divide into patches of {patch_size}; resize or pad it first")
    # exercise 1.1: cut an image into patches
    rows, columns = height // patch_size, width // patch_size
    blocks = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    # Row and column of the patch, then row and column in the patch, then the channel.
    blocks = blocks.permute(0, 2, 4, 3, 5, 1)
    return blocks.reshape(batch, rows * columns, patch_size * patch_size * channels)
    # end exercise


class PatchEmbedding(Module):
    """Project each patch to a token with one shared linear layer (x_p E of eq. 1)."""

    def __init__(self, patch_size: int, channels: int, width: int, random: Random):
        self.patch_size = patch_size
        self.project = Linear(patch_size**2 * channels, width, random)

    def forward(self, images: Tensor) -> Tensor:
        return self.project(patchify(images, self.patch_size))


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output [..., tokens, head_dim] and the attention weights [..., tokens, tokens] (eq. 6 and 7)."""
    # exercise 1.2: scaled dot-product attention
    # A dot product of head_dim values of unit variance has standard deviation √head_dim: unscaled, softmax saturates.
    scores = query @ key.transpose() * (1.0 / math.sqrt(query.shape[-1]))
    weights = softmax(scores)
    return weights @ value, weights
    # end exercise


class Attention(Module):
    """Multi-head self-attention (appendix A): every head attends in its own slice of the width (eq. 5 to 8)."""

    def __init__(self, width: int, heads: int, random: Random):
        self.heads = heads
        self.query = Linear(width, width, random)
        self.key = Linear(width, width, random)
        self.value = Linear(width, width, random)
        self.output = Linear(width, width, random)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, tokens, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.reshape(batch, tokens, self.heads, width // self.heads).permute(0, 2, 1, 3)

        heads = split(self.query(x)), split(self.key(x)), split(self.value(x))
        attended, weights = scaled_dot_product_attention(*heads)
        return self.output(attended.permute(0, 2, 1, 3).reshape(batch, tokens, width)), weights


class MLP(Module):
    """Two linear layers with a GELU between them, applied to each token separately."""

    def __init__(self, width: int, mlp_dim: int, random: Random):
        self.up = Linear(width, mlp_dim, random)
        self.down = Linear(mlp_dim, width, random)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gelu(self.up(x)))


class Block(Module):
    """Attention (eq. 2), then an MLP (eq. 3), each after a LayerNorm and with a residual connection."""

    def __init__(self, geometry: Geometry, random: Random):
        self.attention_norm = LayerNorm(geometry.width, eps=1e-6)
        self.attention = Attention(geometry.width, geometry.heads, random)
        self.mlp_norm = LayerNorm(geometry.width, eps=1e-6)
        self.mlp = MLP(geometry.width, geometry.mlp_dim, random)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        attended, weights = self.attention(self.attention_norm(x))
        x = x + attended
        return x + self.mlp(self.mlp_norm(x)), weights


# ── The whole model ───────────────────────────────────────────────────────────────────────────────────────────────────


class VisionTransformer(Module):
    """Images [batch, channels, height, width] → logits [batch, classes] and attention weights of every block.

    The weights have shape [batch, heads, tokens, tokens]. Only the sizes of the geometry are used; the options of the
    descendants are counted there and implemented in the PyTorch version.
    """

    def __init__(self, geometry: Geometry, random: Random):
        width = geometry.width
        self.patch_embedding = PatchEmbedding(geometry.patch_size, geometry.channels, width, random)
        self.class_token = normal((width,), 0.02, random, requires_grad=True)
        self.positions = normal((geometry.tokens, width), 0.02, random, requires_grad=True)
        self.blocks = [Block(geometry, random) for _ in range(geometry.depth)]
        self.norm = LayerNorm(width, eps=1e-6)
        self.head = Linear(width, geometry.classes, random)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        patches = self.patch_embedding(images)
        batch, _, width = patches.shape
        # The class token comes first; its output is the input of the head.
        tokens = concatenate([self.class_token.expand(batch, 1, width), patches], axis=1)
        # Attention does not depend on the order of tokens; only the added positions encode it (eq. 1).
        tokens = tokens + self.positions
        maps = []
        for block in self.blocks:
            tokens, weights = block(tokens)
            maps.append(weights)
        return self.head(self.norm(tokens[:, 0])), maps  # eq. 4


# ── Training on digits ────────────────────────────────────────────────────────────────────────────────────────────────

BATCH = 16
STEPS, QUICK_STEPS = 600, 56
LEARNING_RATE = 7e-3


def as_tensor(images: list[list[int]]) -> Tensor:
    """Return digits as [batch, 1, 8, 8], with pixels from 0 to 1."""
    pixels = [value / digits.MAX_PIXEL for image in images for value in image]
    return Tensor(pixels, (len(images), 1, digits.SIDE, digits.SIDE))


def fit(model: VisionTransformer, training: digits.Digits, steps: int, random: Random) -> list[float]:
    """Train the model and return the loss of each step."""
    plan = shuffled_batches(len(training.images), BATCH, steps, random)

    def loss_at(step: int) -> Tensor:
        batch = training.subset(plan[step])
        logits, _ = model(as_tensor(batch.images))
        return cross_entropy(logits, batch.labels)

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.05)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="ViT")


# ── Evaluation ────────────────────────────────────────────────────────────────────────────────────────────────────────


def attention_map(model: VisionTransformer, image: list[int]) -> str:
    """Draw a digit and, beside it, the class token's attention to each patch in the last block (mean over heads)."""
    with no_grad():
        _, maps = model(as_tensor([image]))
    weights = maps[-1].mean(1)[0, 0].tolist()[1:]
    side, patch_size, grid = DIGITS.image_size, DIGITS.patch_size, DIGITS.grid
    pixels = [image[row * side : (row + 1) * side] for row in range(side)]
    attention = [
        [weights[row // patch_size * grid + column // patch_size] for column in range(side)] for row in range(side)
    ]
    lines = zip(ascii_image(pixels), ascii_image(attention), strict=True)
    return "\n".join(f"  {left}   {right}" for left, right in lines)


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits; print and return the scores on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    training, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = VisionTransformer(DIGITS, random)
    losses = fit(model, training, steps, random)
    with no_grad():
        logits, _ = model(as_tensor(held_out.images))
    predictions = [row.index(max(row)) for row in logits.tolist()]

    def accuracy(predictions: list[int]) -> float:
        return sum(map(eq, predictions, held_out.labels)) / len(predictions)

    result = {
        "seed": seed,
        "steps": steps,
        "parameters": sum(len(tensor.data) for tensor in model.parameters().values()),
        "accuracy": accuracy(predictions),
        "baseline_accuracy": accuracy(digits.classify_by_nearest_mean(training, held_out.images)),
        "seconds": time.perf_counter() - start,
        "losses": losses,
    }
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\naccuracy on {len(predictions)} held-out digits (a random fifth, seed {seed})")
    print(f"  nearest class mean   {result['baseline_accuracy']:6.1%}")
    costs = f"({result['parameters']:,} parameters, {result['seconds']:.0f} s)"
    print(f"  Vision Transformer   {result['accuracy']:6.1%}   {costs}")
    print(f"\na held-out {held_out.labels[0]}, predicted {predictions[0]}; right: attention of the class token")
    print(attention_map(model, held_out.images[0]))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a Vision Transformer on digits in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the held-out digits and all random draws (default 0)"
    )
    options = parser.parse_args()
    print(geometry_table((*PUBLISHED, DIGITS)), flush=True)
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
