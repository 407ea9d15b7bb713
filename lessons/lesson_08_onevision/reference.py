"""LLaVA-OneVision in pure Python, beside its paper (Li et al., arXiv:2408.03326).

Single images, pairs of images and clips of the toy world become sequences of about equally many tokens. One small
Llama is trained in four stages. It answers where an object is, and in which direction it moves. Clips are trained in
the last stage only, so that their accuracy before it is transferred from images:

    python -S -m lessons.lesson_08_onevision.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import NamedTuple

from data.toybox.scene import WORLD
from data.toybox.video.clip import Clip, Event, reverse_clip, scene_at_time
from data.toybox.video.frames import rasterize_frame, spread_times
from data.toybox.video.generation import ClipSettings, clip_at
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal, tensor
from shared.stdlib.decoder import Decoder
from shared.stdlib.functional import concatenate, cross_entropy, gelu
from shared.stdlib.nn import Linear, Module
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

Size = tuple[int, int]

# ── Bilinear pooling (section 3.2) ────────────────────────────────────────────────────────────────────────────────────


def pool_weights(old: int, new: int) -> Tensor:
    """Return the weights [new, old] by which `new` values are interpolated linearly between `old` values.

    Value i lies at (i + 0.5) · old / new − 0.5, clamped to the old values, between two neighbors.
    """
    # exercise 8.1: the weights of bilinear pooling
    rows = []
    for i in range(new):
        position = min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        rows.append([max(0.0, 1.0 - abs(position - j)) for j in range(old)])
    return tensor(rows)
    # end exercise


def pool_grid(grid: Tensor, size: Size) -> Tensor:
    """Resample a grid of features [rows, columns, width] to `size`: rows and columns separately."""
    rows, columns, width = grid.shape
    pooled = (pool_weights(rows, size[0]) @ grid.reshape(rows, columns * width)).reshape(size[0], columns, width)
    across = pooled.permute(1, 0, 2).reshape(columns, size[0] * width)
    return (pool_weights(columns, size[1]) @ across).reshape(size[1], size[0], width).permute(1, 0, 2)


# ── Tiles and token budgets (section 3.2) ─────────────────────────────────────────────────────────────────────────────


class Layout(NamedTuple):
    """A tile's side in pixels and in patches, the sizes of an image, and the tiles to whose patches it is pooled."""

    tile: int
    side: int
    pinpoints: Sequence[Size]
    max_tiles: int


def select_resolution(image: Size, pinpoints: Sequence[Size]) -> Size:
    """Return the (height, width) that keeps the most pixels of an image; among equals, the one with the least area."""

    def score(size: Size) -> tuple[int, int]:
        scale = min(size[0] / image[0], size[1] / image[1])
        return min(int(image[0] * scale) * int(image[1] * scale), image[0] * image[1]), -size[0] * size[1]

    return max(pinpoints, key=score)


def padding(image: Size, rows: int, columns: int) -> Size:
    """Return the rows above and the columns left of the image on its grid of patches; below and right are as many."""
    if image[1] / image[0] > columns / rows:
        return (rows - int(round(image[0] * (columns / image[1]), 7))) // 2, 0
    return 0, (columns - int(round(image[1] * (rows / image[0]), 7))) // 2


def tiled_tokens(image: Size, pinpoint: Size, side: int, tile: int) -> int:
    """Return the number of tokens of an image and its tiles, each pooled to side × side features, with newlines."""
    rows, columns = side * pinpoint[0] // tile, side * pinpoint[1] // tile
    top, left = padding(image, rows, columns)
    return side**2 + (rows - 2 * top) * (columns - 2 * left + 1)


def solve_image(image: Size, budget: int, layout: Layout) -> tuple[Size | None, int]:
    """Return the size and the side of a pooled tile for one image; None for an image that is one tile."""
    candidates = list(layout.pinpoints)
    while candidates:
        pinpoint = select_resolution(image, candidates)
        for side in range(layout.side, (layout.side - 1) // 2, -1):
            if tiled_tokens(image, pinpoint, side, layout.tile) <= budget:
                return pinpoint, side
        candidates.remove(pinpoint)
    return None, solve_images(1, budget, layout)


def solve_images(count: int, budget: int, layout: Layout) -> int:
    """Return the side of each of several images. Raises ValueError for a budget that is smaller than the images."""
    side = min(layout.side, math.isqrt(max(0, budget // count - 1)))
    if side < 1:
        raise ValueError(f"a budget of {budget} tokens is smaller than {count} images of one feature and a newline")
    return side


def solve_video(frames: int, budget: int, layout: Layout) -> tuple[int, int]:
    """Return the frames and the side of a pooled frame. Raises ValueError for a budget smaller than one frame."""
    greatest = (layout.side + 1) // 2
    least = (greatest + 1) // 2
    if frames < 1 or budget < least**2 + 1:
        raise ValueError(f"a budget of {budget} tokens for {frames} frames of {least} × {least} features and a newline")
    side = min(greatest, max(least, math.isqrt((budget - 1) // frames)))
    return min(frames, (budget - 1) // side**2), side


# ── One sequence for images and videos (figure 3) ─────────────────────────────────────────────────────────────────────


def join_tiles(tiles: Tensor, image: Size, grid: Size, newline: Tensor, max_patches: int) -> Tensor:
    """Join tiles [tiles, patches, width]: the whole image, then the rows of its grid, if any, with newlines."""
    count, patches, width = tiles.shape
    overview, end, side = tiles[0], newline.reshape(1, width), math.isqrt(patches)
    if count == 1:
        return concatenate([overview, end])
    rows, columns = grid[0] * side, grid[1] * side
    joined = tiles[1:].reshape(*grid, side, side, width).permute(0, 2, 1, 3, 4).reshape(rows, columns, width)
    top, left = padding(image, rows, columns)
    rows, columns, _ = (joined := joined[top : rows - top, left : columns - left]).shape
    ratio = math.sqrt(rows * columns / max_patches)
    if ratio > 1.1:
        joined = pool_grid(joined, (rows := int(rows // ratio), columns := int(columns // ratio)))
    lines = concatenate([joined, end.reshape(1, 1, width).expand(rows, 1, width)], axis=1)
    return concatenate([overview, lines.reshape(rows * (columns + 1), width)])


def join_frames(frames: Tensor, newline: Tensor, side: int) -> Tensor:
    """Pool frames [frames, patches, width] to side × side features and join them, with one newline at the end."""
    count, patches, width = frames.shape
    own = math.isqrt(patches)
    pooled = (pool_grid(frames[i].reshape(own, own, width), (side, side)) for i in range(count))
    return concatenate([*(frame.reshape(side * side, width) for frame in pooled), newline.reshape(1, width)])


class Projector(Module):
    """A two-layer MLP with GELU from the features of a patch to an embedding of the language model."""

    def __init__(self, features: int, width: int, random: Random):
        self.first, self.second = Linear(features, width, random), Linear(width, width, random)

    def forward(self, features: Tensor) -> Tensor:
        return self.second(gelu(self.first(features)))


class OneVision(Module):
    """A projector, a newline and a language model; the frozen vision encoder is outside."""

    def __init__(self, projector: Projector, language_model: Decoder, random: Random):
        self.projector, self.language_model = projector, language_model
        width = language_model.norm.weight.shape[0]
        self.newline = normal((width,), width**-0.5, random, requires_grad=True)

    def visual_tokens(self, kind: str, features: Tensor, layout: Layout) -> Tensor:
        """Return the embeddings of a square image with tiles, of images of one tile each, or of a video's frames."""
        projected = self.projector(features)
        if kind == "video":
            return join_frames(projected, self.newline, (layout.side + 1) // 2)
        limit, square = layout.max_tiles * layout.side**2, (1, 1)
        if kind == "image":
            across = math.isqrt(features.shape[0] - 1)
            return join_tiles(projected, square, (across, across), self.newline, limit)
        single = (projected[i : i + 1] for i in range(features.shape[0]))
        return concatenate([join_tiles(tile, square, square, self.newline, limit) for tile in single])

    def forward(self, kind: str, features: Sequence[Tensor], questions: Sequence[int], layout: Layout) -> Tensor:
        """Return logits [inputs, words] of the answer to the question behind each input."""
        parts = []
        for one, question in zip(features, questions, strict=True):
            parts += [self.visual_tokens(kind, one, layout), self.language_model.embedding([question])]
        x = concatenate(parts)
        return self.language_model(x.reshape(len(features), x.shape[0] // len(features), x.shape[1]))[:, -1]


# ── Images and clips of one moving object ─────────────────────────────────────────────────────────────────────────────

QUESTIONS = ("column", "direction")
COLUMNS = ("left", "middle", "right")
WORDS = (*QUESTIONS, *COLUMNS, "leftward", "rightward")
KINDS = ("image", "images", "video")
PATCH, SIDE, FRAMES = 8, 2, 8
TILE = PATCH * SIDE
LAYOUT = Layout(TILE, SIDE, [(TILE, TILE), (2 * TILE, 2 * TILE)], 1)
FEATURES = 4 + 2 * SIDE
CONTRAST = 50.0  # brings the contrast of an object to about 1


def moving_clip(split: str, seed: int, number: int) -> Clip:
    """Return clip `number`: one object moves left or right all the time. Odd clips are the one before, backward."""
    number, backward = divmod(number, 2)
    while True:
        clip = clip_at(split, seed, number, ClipSettings((1, 1), kinds=("move",)))
        if clip.events and (move := clip.events[0]).direction in ("left", "right"):
            event = Event(0, "move", 0, move.end - move.start, move.before, move.after)
            forward = Clip(event.end, (move.before,), (event,), clip.background)
            return reverse_clip(forward) if backward else forward
        number += 2**40


def frozen_features(pixels: bytes, size: int, top: int = 0, left: int = 0) -> list[float]:
    """Return frozen features of a tile: per patch the contrast of its quarters, and the mean at its row and column."""
    means, half, values = [sum(pixels[channel::3]) / size**2 for channel in range(3)], PATCH // 2, []
    for patch in range(SIDE**2):
        row, column = divmod(patch, SIDE)
        contrasts = []
        for quarter in range(4):
            y, x = top + row * PATCH + half * (quarter // 2), left + column * PATCH + half * (quarter % 2)
            block = [3 * ((y + dy) * size + x + dx) for dy in range(half) for dx in range(half)]
            total = sum(abs(pixels[at + channel] - means[channel]) for at in block for channel in range(3))
            contrasts.append(total / (CONTRAST * len(block)))
        mean = sum(contrasts) / 4
        values += [*contrasts, *(mean * (row == i) for i in range(SIDE)), *(mean * (column == i) for i in range(SIDE))]
    return values


class Example(NamedTuple):
    """An input's features [tiles or frames, patches, features], a question about it, and the answer, as token ids."""

    features: Tensor
    question: int
    answer: int


def make_example(kind: str, clip: Clip) -> Example:
    """Return a question about the first frame ("image"), the first and the last ("images"), or the whole clip."""
    move = clip.events[0]
    if kind == "image":
        scene, question, answer = scene_at_time(clip, 0), "column", COLUMNS[3 * move.before.x // WORLD]
        large = rasterize_frame(scene, 2 * TILE)
        values = [frozen_features(rasterize_frame(scene, TILE), TILE)]
        values += [frozen_features(large, 2 * TILE, top, left) for top in (0, TILE) for left in (0, TILE)]
    else:
        question, answer = "direction", f"{move.direction}ward"
        times = (0, clip.seconds) if kind == "images" else spread_times(clip.seconds, FRAMES)
        values = [frozen_features(rasterize_frame(scene_at_time(clip, time), TILE), TILE) for time in times]
    features = Tensor([value for one in values for value in one], (len(values), SIDE**2, FEATURES))
    return Example(features, WORDS.index(question), WORDS.index(answer))


# ── Training in stages (section 5, table 1) ───────────────────────────────────────────────────────────────────────────

WIDTH, DEPTH, HEADS, MLP_DIM = 16, 2, 2, 32
BATCH, LEARNING_RATE, FLOOR, HELD_OUT = 8, 1e-2, 0.2, 60


class Stage(NamedTuple):
    """A stage: its name, its steps, the types of input in turn, and whether the language model is trained."""

    name: str
    steps: int
    kinds: tuple[str, ...]
    all_trained: bool = True


STAGES = (
    Stage("alignment", 15, ("image",), all_trained=False),
    Stage("single image", 60, ("image",)),
    Stage("images", 110, ("image", "images", "images")),
    Stage("onevision", 80, ("image", "images", "video", "video")),
)


def train_stage(model: OneVision, stage: Stage, seed: int, first: int) -> list[float]:
    """Train one stage on new clips, from number `first` on, and return the losses."""
    language = model.language_model.parameters().values()
    for weight in language:
        weight.requires_grad = stage.all_trained

    def loss_at(step: int) -> Tensor:
        kind = stage.kinds[step % len(stage.kinds)]
        numbers = range(first + step * BATCH, first + (step + 1) * BATCH)
        batch = [make_example(kind, moving_clip("train", seed, number)) for number in numbers]
        logits = model(kind, [one.features for one in batch], [one.question for one in batch], LAYOUT)
        return cross_entropy(logits, [one.answer for one in batch])

    trained = (weight for weight in model.parameters().values() if weight.requires_grad)
    optimizer = AdamW(trained, LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.02)
    schedule = partial(warmup_cosine, steps=stage.steps, warmup_steps=stage.steps // 10, floor=FLOOR)
    losses = train(model, loss_at, optimizer, stage.steps, schedule=schedule, clip_norm=1.0, label=stage.name)
    for weight in language:
        weight.requires_grad = True
    return losses


def accuracy(model: OneVision, kind: str, count: int, seed: int) -> float:
    """Return the fraction of right answers about validation clips."""
    batch = [make_example(kind, moving_clip("validation", seed, number)) for number in range(count)]
    with no_grad():
        logits = model(kind, [one.features for one in batch], [one.question for one in batch], LAYOUT).tolist()
    return sum(row.index(max(row)) == one.answer for row, one in zip(logits, batch, strict=True)) / count


def run(*, stages: Sequence[Stage] = STAGES, held_out: int = HELD_OUT, seed: int = 0) -> dict:
    """Train all stages; print and return the accuracy per type of input after each."""
    start, random = time.perf_counter(), Random(seed)
    language_model = Decoder(len(WORDS), WIDTH, DEPTH, HEADS, MLP_DIM, random)
    model = OneVision(Projector(FEATURES, WIDTH, random), language_model, random)
    losses, accuracies, first = {}, {}, 0
    for stage in stages:
        losses[stage.name] = train_stage(model, stage, seed, first)
        accuracies[stage.name] = {kind: accuracy(model, kind, held_out, seed) for kind in KINDS}
        first += stage.steps * BATCH
    clip = moving_clip("validation", seed, 0)
    tokens = {kind: model.visual_tokens(kind, make_example(kind, clip).features, LAYOUT).shape[0] for kind in KINDS}
    parameters = sum(len(weight.data) for weight in model.parameters().values())
    result = {"seed": seed, "losses": losses, "accuracy": accuracies, "tokens": tokens, "parameters": parameters}
    report(result | {"seconds": time.perf_counter() - start})
    return result


def report(result: dict) -> None:
    """Print the losses, the tokens and the accuracies."""
    for name, losses in result["losses"].items():
        print(f"{name:14} loss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\n{'':30}" + "".join(f"{kind:>9}" for kind in KINDS))
    print(f"{'visual tokens':30}" + "".join(f"{count:9}" for count in result["tokens"].values()))
    for name, accuracies in result["accuracy"].items():
        print(f"{'accuracy after ' + name:30}" + "".join(f"{value:9.0%}" for value in accuracies.values()))
    print(f"{result['parameters']:,} parameters, {result['seconds']:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train one model on images, pairs of images and clips.")
    parser.add_argument("--quick", action="store_true", help="a few steps per stage, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the clips and of every random draw (default 0)")
    options = parser.parse_args()
    quick = {"stages": tuple(stage._replace(steps=3) for stage in STAGES), "held_out": 6} if options.quick else {}
    run(**quick, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
