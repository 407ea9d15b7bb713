"""Identities that hold up to rounding: pooling, token counts, the sequence builder, the reference against PyTorch."""

from random import Random

import torch
from torch import nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_05_llava.model import Projector
from lessons.lesson_08_onevision import reference
from lessons.lesson_08_onevision.model import (
    Context,
    EncodedImage,
    EncodedVideo,
    ImageInput,
    ImagePlan,
    LlavaOneVision,
    PlaceholderIds,
    VideoInput,
    VideoPlan,
    VisualLayout,
    build_sequence,
    pool_grid,
    solve_image,
    solve_sequence,
    solve_video,
)
from lessons.lesson_08_onevision.model.onevision import EncodedVisual
from lessons.lesson_08_onevision.model.tiling import grid_pinpoints
from lessons.lesson_08_onevision.model.token_budget import VisualInput
from shared.course.context import RunContext
from shared.stdlib.decoder import Decoder
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.transformer import DecoderConfig

LAYOUT = VisualLayout(tile_size=16, side=3, pinpoints=grid_pinpoints(16, 4), max_tiles=2)
FEATURES, WIDTH, DEPTH, HEADS, MLP_DIM = 7, 12, 2, 2, 24
WORDS = len(reference.WORDS)
PLACEHOLDERS = PlaceholderIds(WORDS, WORDS + 1)
BUDGETS = (20, 400)


def check_mechanism(context: RunContext) -> dict[str, float]:
    """Return differences and mismatches of quantities that must be equal; only the seed is used."""
    torch.manual_seed(context.seed)
    model = random_model()
    return {
        "pooling_difference": pooling_difference(),
        "count_mismatches": float(count_mismatches(model, Random(context.seed))),
        "over_budget": float(tokens_over_budget(Random(context.seed))),
        "batch_difference": batch_difference(model),
        "reference_difference": reference_difference(model, context.seed),
    }


def random_model() -> LlavaOneVision:
    """Return a small model in float64 whose weights are all drawn at random."""
    config = DecoderConfig(WORDS, WIDTH, DEPTH, HEADS, HEADS, MLP_DIM, rotary_base=10_000.0)
    model = LlavaOneVision(
        nn.Identity(), Projector(FEATURES, WIDTH), LanguageModel(config), layout=LAYOUT, placeholders=PLACEHOLDERS
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def pooling_difference() -> float:
    """Return the largest difference between bilinear pooling of a frame and the product with the weights of the rows.

    A frame of 27 × 27 features G is pooled to 14 × 14: W G Wᵀ in each channel, with W of shape [14, 27].
    """
    grid = torch.randn(27, 27, 5, dtype=torch.float64)
    weights = to_torch(reference.pool_weights(27, 14))
    return max_abs_difference(torch.einsum("ir,rcw,jc->ijw", weights, grid, weights), pool_grid(grid, (14, 14)))


def count_mismatches(model: LlavaOneVision, random: Random) -> int:
    """Return for how many of 60 planned images and videos the counted tokens differ from the embeddings' number."""
    mismatches = 0
    for number in range(60):
        budget = random.randint(*BUDGETS)
        encoded: EncodedVisual
        plan: ImagePlan | VideoPlan
        if number % 2:
            plan = solve_video(random.randint(1, 40), budget, LAYOUT)
            encoded = EncodedVideo(random_features(plan.frames), plan)
        else:
            size = random.randint(1, 120), random.randint(1, 120)
            plan = solve_image(size, budget, LAYOUT)
            height, width = plan.pinpoint or (0, 0)
            tiles = height * width // LAYOUT.tile_size**2 + 1
            encoded = EncodedImage(random_features(tiles), size, plan)
        mismatches += len(model.visual_embeddings(encoded)) != plan.tokens
    return mismatches


def tokens_over_budget(random: Random) -> int:
    """Return the most tokens by which 200 random sequences of images and videos exceed their contexts; 0 if none."""
    excess = 0
    for _ in range(200):
        visuals: list[VisualInput] = [
            VideoInput(random.randint(1, 40))
            if random.random() < 0.5
            else ImageInput((random.randint(1, 120), random.randint(1, 120)))
            for _ in range(random.randint(1, 4))
        ]
        length = random.randint(200, 2000)
        plans = solve_sequence(visuals, Context(length, text=20), LAYOUT)
        excess = max(excess, 20 + sum(plan.tokens for plan in plans) - length)
    return excess


def random_features(tiles: int) -> torch.Tensor:
    """Return random features [tiles, patches, width] of tiles or frames."""
    return torch.randn(tiles, LAYOUT.tile_patches, FEATURES, dtype=torch.float64)


def batch_difference(model: LlavaOneVision) -> float:
    """Return the largest difference between logits of rows in one padded batch and of the same rows one by one.

    The rows hold an image with tiles, three images, and a video, between random words.
    """
    inputs: list[list[VisualInput]] = [[ImageInput((30, 60))], [ImageInput((9, 20))] * 3, [VideoInput(4)]]
    rows, visuals = [], []
    for parts in inputs:
        words = torch.randint(WORDS, (len(parts) + 1, 2)).tolist()
        text = [item for word, part in zip(words, parts, strict=False) for item in (word, part)]
        rows.append(build_sequence([*text, words[-1]], LAYOUT, PLACEHOLDERS).token_ids)
        visuals.append([encode(part, tiled=len(parts) == 1) for part in parts])
    longest = max(map(len, rows))
    padded = torch.stack([nn.functional.pad(row, (0, longest - len(row))) for row in rows])
    segments = torch.stack([(torch.arange(longest) >= len(row)).long().neg() for row in rows])
    together = model.logits(padded, [visual for row in visuals for visual in row], segments)
    single = [model.logits(row[None], own)[0] for row, own in zip(rows, visuals, strict=True)]
    return max(max_abs_difference(together[index, : len(logits)], logits) for index, logits in enumerate(single))


def encode(visual: VisualInput, *, tiled: bool) -> EncodedVisual:
    """Return random features for an image or a video of a sequence."""
    if isinstance(visual, VideoInput):
        return EncodedVideo(random_features(visual.frames))
    rows, columns = LAYOUT.tiles(visual.size) if tiled else (0, 0)
    return EncodedImage(random_features(rows * columns + 1), visual.size)


def reference_difference(model: LlavaOneVision, seed: int) -> float:
    """Return the largest difference between logits of the pure-Python model and of the PyTorch model, all inputs."""
    random = Random(seed)
    language = Decoder(WORDS, WIDTH, DEPTH, HEADS, MLP_DIM, random)
    plain = reference.OneVision(reference.Projector(FEATURES, WIDTH, random), language, random)
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    side, square = LAYOUT.tile_size, (2 * LAYOUT.tile_size, 2 * LAYOUT.tile_size)
    layout = reference.Layout(side, LAYOUT.side, [square], LAYOUT.max_tiles)
    differences, question = [], 1
    for kind, count in (("image", 5), ("images", 2), ("video", 4)):
        features = random_features(count)
        parts: list[VisualInput] = (
            [VideoInput(count)] if kind == "video" else [ImageInput(square)] * (1 if kind == "image" else count)
        )
        visuals: list[EncodedVisual] = [EncodedVideo(features)]
        if kind != "video":
            visuals = [EncodedImage(part, square) for part in ([features] if kind == "image" else features.split(1))]
        row = build_sequence([*parts, [question]], LAYOUT, PLACEHOLDERS).token_ids
        expected = plain(kind, [to_stdlib(features)], [question], layout)
        differences.append(max_abs_difference(to_torch(expected), model.logits(row[None], visuals)[:, -1]))
    return max(differences)
