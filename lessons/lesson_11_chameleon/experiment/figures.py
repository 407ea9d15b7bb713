"""Figures of lesson 11: drawings and codes of the shipped model, and measurements of a run."""

import colorsys

import torch
from einops import rearrange
from torch import Tensor, nn

from data.toybox.heldout import HELD_OUT, TEST_SEED, sample_scenes
from data.toybox.scene import Scene
from lessons.lesson_11_chameleon.experiment.arms import TASKS, TOKENIZERS
from lessons.lesson_11_chameleon.experiment.codebooks import SIZES
from lessons.lesson_11_chameleon.experiment.data import OBJECTS, SETTING, scene_images
from lessons.lesson_11_chameleon.experiment.evaluate import draw_scenes, reconstruct
from lessons.lesson_11_chameleon.model.image_tokenizer import ImageTokenizer
from lessons.lesson_11_chameleon.model.quantizer import code_frequencies
from lessons.lesson_11_chameleon.model.toy_chameleon import load_chameleon
from shared import plots
from shared.course.lesson import Run
from shared.judge import load_judge, predict_scenes
from shared.plots.style import bare

CAPTIONS = {
    "drawings": "Images drawn from captions by one decoder, 64 codes each. A star marks a combination of color and "
    "shape that no training image or text has. A check mark: the judge recognizes place, size, texture, color and "
    "shape.",
    "pairs": "Each caption's drawing beside the reconstruction of its real render. The reconstruction is the best that "
    "a perfect decoder can draw with this image tokenizer.",
    "attributes": "Accuracy per attribute by the judge, unseen combinations: drawings, reconstructions, real renders.",
    "answers": "Accuracy on questions about one object of an unseen combination, by question type.",
    "atlas": "All codes of the shipped image tokenizer. Each tile has one code at its center and the most frequent "
    "code around it. Codes that draw parts of objects come first, by hue; others follow, by frequency.",
    "logits": "Largest attention logit of a training run against its learning rate, with and without QK-norm.",
    "codebooks": "PSNR of reconstructions against the size of the codebook.",
    "use": "Fraction of the codes in use on test images, by image tokenizer.",
    "shapes": "Shapes and colors that the judge recognizes in reconstructions, by image tokenizer.",
    "losses": "Cross-entropy per token on unseen combinations, joint training beside separate models of equal size.",
}
COLUMNS, ROWS = 6, 4
ATLAS_COLUMNS = 32
ATLAS_CONTRAST = 0.015
"""Root mean square difference from the background, in units of the pixel range, above which a code draws an object."""
ATLAS_MARGIN = 2
"""Pixels on each side of a code's own that its tile in the atlas shows."""
ATTRIBUTES = ("place", "shape", "color", "size", "texture", "object")
VARIANTS = {"drawings": "draw", "reconstructions": "ceiling", "real renders": "real"}


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure that the run's arms allow, the first one first on the page."""
    arms = set(run.arms[run.seeds[0]])
    drawn: dict[str, plots.Figure] = {}
    if "shipped" in arms:
        drawn |= {"drawings": drawings(), "pairs": pairs(), "atlas": codebook_atlas()}
        drawn |= {"attributes": accuracy_by_attribute(run), "answers": accuracy_by_type(run)}
    if "stability" in arms:
        drawn["logits"] = largest_logits(run)
    if set(TOKENIZERS) <= arms:
        drawn |= {"codebooks": psnr_by_size(run), "use": use_by_tokenizer(run), "shapes": judged_by_tokenizer(run)}
    if set(TASKS) <= arms:
        drawn["losses"] = losses_by_task(run)
    return {name: drawn[name] for name in CAPTIONS if name in drawn}


# ── Images of the shipped model ───────────────────────────────────────────────────────────────────────────────────────


def sheet_scenes() -> list[Scene]:
    """Return scenes of seen and of unseen combinations in turn, as different as possible."""
    validation, test = (sample_scenes(split, TEST_SEED + 7, 400, OBJECTS) for split in ("validation", "test"))
    chosen: list[Scene] = []
    for candidates, count in ((test, COLUMNS * ROWS // 2), (validation, COLUMNS * ROWS // 2)):
        chosen += most_different(candidates, count)
    half = len(chosen) // 2
    return [scene for pair in zip(chosen[half:], chosen[:half], strict=True) for scene in pair]


def most_different(scenes: list[Scene], count: int) -> list[Scene]:
    """Return `count` scenes, each the first whose attributes occur least often among those before it."""
    chosen: list[Scene] = []
    for _ in range(count):
        used = [value for scene in chosen for value in attributes_of(scene)]
        chosen.append(min(scenes, key=lambda scene: sum(map(used.count, attributes_of(scene)))))
    return chosen


def attributes_of(scene: Scene) -> list[str]:
    """Return the attributes and the place of a scene's first object."""
    first = scene.objects[0]
    return [first.color, first.shape, first.texture, first.size, first.place]


def title_of(scene: Scene) -> str:
    """Return the requested attributes in three short lines; a star marks an unseen combination."""
    first = scene.objects[0]
    star = " ★" if (first.color, first.shape) in HELD_OUT else ""
    return f"{first.size} {first.texture}\n{first.color} {first.shape}{star}\n{first.place}"


@torch.no_grad()
def drawings() -> plots.Figure:
    """Draw a sheet of captions and drawings, each marked by the judge."""
    model, scenes = load_chameleon(), sheet_scenes()
    images = draw_scenes(model, scenes, TEST_SEED)
    predicted = predict_scenes(load_judge(), images)
    correct = [
        len(own.objects) == 1 and attributes_of(own) == attributes_of(scene)
        for own, scene in zip(predicted, scenes, strict=True)
    ]
    return plots.image_grid(list(images), [title_of(scene) for scene in scenes], columns=COLUMNS, correct=correct)


@torch.no_grad()
def pairs() -> plots.Figure:
    """Draw drawings in one row, and the reconstructions of the same scenes below."""
    model = load_chameleon()
    scenes = most_different(sample_scenes("test", TEST_SEED + 8, 200, OBJECTS), COLUMNS)
    images = torch.cat([draw_scenes(model, scenes, TEST_SEED), reconstruct(model, scenes)])
    titles = [title_of(scene) for scene in scenes] + ["reconstruction"] * len(scenes)
    return plots.image_grid(list(images), titles, columns=COLUMNS)


@torch.no_grad()
def codebook_atlas() -> plots.Figure:
    """Draw what every code of the shipped image tokenizer draws, as one image of many tiles."""
    tokenizer = load_chameleon().image_tokenizer
    scenes = sample_scenes("validation", TEST_SEED, 400, (1, 5))
    codes = tokenizer.encode(scene_images(scenes, tokenizer.config.image_size))
    frequencies = code_frequencies(codes, tokenizer.codebook_size)
    tiles = code_images(tokenizer, torch.arange(tokenizer.codebook_size), int(frequencies.argmax()))
    image = mosaic(tiles[atlas_order(tiles, frequencies)])
    figure, axes = plots.subplots(height=3.9)
    axes[0, 0].imshow(image.movedim(0, -1), interpolation="nearest")
    bare(axes[0, 0])
    return figure


def atlas_order(tiles: Tensor, frequencies: Tensor) -> list[int]:
    """Return all codes: those that draw a part of an object by hue, then those of the background by frequency."""
    contrast = (tiles - tiles[frequencies.argmax()]).square().mean(dim=(1, 2, 3)).sqrt()
    # The color of the pixels where a tile differs most from the background.
    strongest = (tiles - tiles[frequencies.argmax()]).abs().sum(dim=1).flatten(1).topk(4).indices
    colors = tiles.flatten(2).gather(2, strongest[:, None].expand(-1, 3, -1)).mean(dim=2)
    hues = [colorsys.rgb_to_hsv(*color)[0] for color in colors.tolist()]
    objects = [code for code in range(len(tiles)) if contrast[code] > ATLAS_CONTRAST]
    others = [code for code in range(len(tiles)) if contrast[code] <= ATLAS_CONTRAST]
    return sorted(objects, key=hues.__getitem__) + sorted(others, key=lambda code: -float(frequencies[code]))


def mosaic(tiles: Tensor) -> Tensor:
    """Return tiles [tiles, 3, size, size] as one image of `ATLAS_COLUMNS` columns, with white lines between them."""
    padded = nn.functional.pad(tiles, (0, 1, 0, 1), value=1.0)
    missing = -len(padded) % ATLAS_COLUMNS
    padded = torch.cat([padded, torch.ones(missing, *padded.shape[1:])])
    return rearrange(padded, "(r c) n h w -> n (r h) (c w)", c=ATLAS_COLUMNS)


def code_images(tokenizer: ImageTokenizer, codes: Tensor, background: int) -> Tensor:
    """Return for each code the pixels around the middle of an image of `background` with this code in the middle."""
    side = tokenizer.config.side
    middle, pixels = side // 2, tokenizer.config.image_size // side
    grids = torch.full((len(codes), side, side), background)
    grids[:, middle, middle] = codes
    first, last = middle * pixels - ATLAS_MARGIN, (middle + 1) * pixels + ATLAS_MARGIN
    return tokenizer.decode(grids)[:, :, first:last, first:last]


# ── Measurements ──────────────────────────────────────────────────────────────────────────────────────────────────────


def accuracy_by_attribute(run: Run) -> plots.Figure:
    """Draw the judge's accuracy per attribute."""
    bars = {
        f"{attribute}, {title}": run.measurements("shipped", f"{name}_{attribute}")
        for attribute in ATTRIBUTES
        for title, name in VARIANTS.items()
    }
    return plots.bars_with_intervals(bars, x_label="accuracy by the judge", percent=True)


def accuracy_by_type(run: Run) -> plots.Figure:
    """Draw the accuracy of answers per question type."""
    bars = {name: run.measurements("shipped", f"answers_{name}") for name in SETTING.question_types}
    bars["mean"] = run.measurements("shipped", "answers")
    return plots.bars_with_intervals(bars, x_label="answered exactly", highlight="mean", percent=True)


def largest_logits(run: Run) -> plots.Figure:
    """Draw the largest attention logit against the learning rate."""
    first = run.arms[run.seeds[0]]["stability"]
    rates = first["rates"]
    curves = {
        name: [
            ([1000 * rate for rate in rates], [arms["stability"][f"{name}_{rate:g}_logit"] for rate in rates])
            for arms in run.arms.values()
        ]
        for name in first["designs"]
    }
    return plots.learning_curves(
        curves, x_label="learning rate (thousandths)", y_label="largest attention logit", logarithmic=True
    )


def psnr_by_size(run: Run) -> plots.Figure:
    """Draw PSNR against the number of codes, in doublings."""
    curves = {}
    for title, prefix in (("EMA codebook", ""), ("FSQ", "FSQ, ")):
        sizes = [size for size in SIZES if f"{prefix}{size} codes" in TOKENIZERS]
        curves[title] = [
            ([size.bit_length() - 1 for size in sizes], [arms[f"{prefix}{size} codes"]["psnr"] for size in sizes])
            for arms in run.arms.values()
        ]
    return plots.learning_curves(curves, x_label="bits per code", y_label="PSNR (dB)")


def use_by_tokenizer(run: Run) -> plots.Figure:
    """Draw the fraction of codes in use."""
    bars = {name: run.measurements(name, "use") for name in TOKENIZERS}
    return plots.bars_with_intervals(bars, x_label="codes in use", percent=True)


def judged_by_tokenizer(run: Run) -> plots.Figure:
    """Draw the judge's accuracy on reconstructions."""
    bars = {
        f"{name}, {attribute}": run.measurements(name, attribute)
        for name in TOKENIZERS
        for attribute in ("shape", "color")
    }
    return plots.bars_with_intervals(bars, x_label="accuracy by the judge", percent=True)


def losses_by_task(run: Run) -> plots.Figure:
    """Draw the cross-entropy per task, jointly and separately trained."""
    bars = {
        f"{task}, {arm}": run.measurements(arm, f"{task}_loss")
        for task in ("draw", "caption", "answer")
        for arm, mixture in TASKS.items()
        if mixture.get(task)
    }
    return plots.bars_with_intervals(bars, x_label="cross-entropy (nats per token)")
