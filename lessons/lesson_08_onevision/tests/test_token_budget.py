"""The token-budget solver: its plans fit, none is better, the model follows them, and bad input has clear errors."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import siglip_vision_config
from lessons.lesson_05_llava.model import Projector
from lessons.lesson_08_onevision.model import (
    Context,
    ImageInput,
    LlavaOneVision,
    PlaceholderIds,
    VideoInput,
    VideoPlan,
    VisualLayout,
    build_sequence,
    solve_image,
    solve_images,
    solve_sequence,
    solve_video,
)
from lessons.lesson_08_onevision.model.tiling import grid_pinpoints
from lessons.lesson_08_onevision.model.token_budget import PAPER_BUDGETS, frame_indices, tiled_tokens
from shared.testing import redraw_weights
from shared.transformer import DecoderConfig

PAPER = VisualLayout()
SMALL = VisualLayout(14, 4, grid_pinpoints(14, 4), 3)
IDS = PlaceholderIds(41, 42)


# ── Plans ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_papers_own_inputs_fit_its_budgets_unpooled():
    assert PAPER_BUDGETS == {"image": 7290, "images": 8748, "video": 6272}
    # 12 newlines and one newline are not in the paper's counts.
    assert solve_images(12, PAPER_BUDGETS["images"] + 12, PAPER).side == 27
    assert solve_video(32, PAPER_BUDGETS["video"] + 1, PAPER) == (32, 14, 6273)
    assert solve_image((1152, 1152), 7290 + 81, PAPER) == ((1152, 1152), 27, 729 + 81 * 82)


def test_the_papers_formula_holds_where_nothing_is_padded():
    """Tiles have T = τ / (a · b + 1) tokens; the newlines are one token more per row."""
    for tiles in range(1, 7):
        size = (384 * tiles, 384 * tiles)
        plan = solve_image(size, 7290 + 84, PAPER)
        newlines = tiles * plan.side
        assert plan.pinpoint == size and plan.tokens == (tiles**2 + 1) * plan.side**2 + newlines <= 7374
        if plan.side < 27:
            assert (tiles**2 + 1) * (plan.side + 1) ** 2 + tiles * (plan.side + 1) > 7374
        assert plan.side == min(27, int((7290 / (tiles**2 + 1)) ** 0.5))


@pytest.mark.parametrize("layout", [PAPER, SMALL], ids=["paper", "small"])
def test_plans_fit_and_no_plan_of_the_same_grid_has_more_features(layout):
    random = Random(0)
    for _ in range(40):
        image = int(10 ** random.uniform(0, 3.5)), int(10 ** random.uniform(0, 3.5))
        budget = int(10 ** random.uniform(0.5, 4))
        plan = solve_image(image, budget, layout)
        assert plan.tokens <= budget
        if plan.pinpoint is None:
            assert plan.tokens == plan.side**2 + 1
            least = layout.video_side
            assert all(tiled_tokens(image, pinpoint, least, layout) > budget for pinpoint in layout.pinpoints)
        else:
            assert plan.tokens == tiled_tokens(image, plan.pinpoint, plan.side, layout)
            assert plan.side >= layout.video_side
            larger = plan.side + 1
            assert larger > layout.side or tiled_tokens(image, plan.pinpoint, larger, layout) > budget


def test_a_larger_budget_never_gives_fewer_tokens():
    tokens = [solve_image((700, 1900), budget, PAPER).tokens for budget in range(300, 9000, 150)]
    assert all(after >= before for before, after in pairwise(tokens)) and len(set(tokens)) > 10


def test_frames_are_dropped_only_when_pooling_does_not_suffice():
    assert solve_video(10_000, 6273, PAPER) == (128, 7, 6273)
    assert solve_video(128, 6273, PAPER) == (128, 7, 6273)
    assert solve_video(1, 6273, PAPER) == (1, 14, 197)
    assert solve_video(10_000, 6273, PAPER, least_side=1) == (6272, 1, 6273)
    assert solve_video(10_000, 6273, PAPER, least_side=14) == (32, 14, 6273)


def test_frame_indices_are_spread_from_the_first_to_the_last():
    assert frame_indices(10_000, 3) == [0, 4999, 9999]
    assert frame_indices(9, 1) == [4] and frame_indices(1, 1) == [0]
    assert frame_indices(4, 4) == [0, 1, 2, 3]
    assert len(set(frame_indices(10_000, 128))) == 128
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"{count} of 4 frames"):
            frame_indices(4, count)


def test_a_sequence_divides_its_context():
    visuals = [ImageInput((700, 1900)), VideoInput(32), ImageInput((9, 9))]
    for length in (1500, 4000, 8192):
        plans = solve_sequence(visuals, Context(length, text=300), PAPER)
        assert sum(plan.tokens for plan in plans) <= length - 300
        # Two images are one tile each.
        assert plans[0].pinpoint is None and plans[2].pinpoint is None and isinstance(plans[1], VideoPlan)
    alone = solve_sequence([ImageInput((700, 1900)), VideoInput(8)], Context(8192, text=300), PAPER)
    assert alone[0].pinpoint is not None
    assert solve_sequence([], Context(5), PAPER) == []


# ── Bad input ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solve_image((0, 5), 1000, PAPER), r"an image of \(0, 5\)"),
        (lambda: solve_image((5, 5), 1, PAPER), "a budget of 1 tokens is smaller than 1 tile of one feature"),
        (lambda: solve_image((5, 5), 9, PAPER, least_side=28), "least_side is 28; expected from 1 to 27"),
        (lambda: solve_images(0, 1000, PAPER), "0 images; expected at least one"),
        (lambda: solve_images(600, 1000, PAPER), "smaller than 600 tiles .* expected at least 1200 tokens"),
        (lambda: solve_video(0, 1000, PAPER), "a video of 0 frames"),
        (lambda: solve_video(-1, 1000, PAPER), "a video of -1 frames"),
        (lambda: solve_video(5, 49, PAPER), "a budget of 49 tokens is smaller than one frame of 7 × 7 .* 50 tokens"),
        (lambda: solve_video(5, 49, PAPER, least_side=0), "least_side is 0; expected from 1 to 14"),
        (lambda: Context(100, text=100), "a context of 100 tokens with 100 tokens of text has none left"),
        (lambda: Context(100, text=-1), "-1 tokens of text"),
        (lambda: solve_sequence([VideoInput(4)] * 9, Context(100), PAPER), "a budget of 11 tokens is smaller than one"),
        (lambda: PAPER.image_tokens((0, 4)), r"an image of \(0, 4\)"),
        (lambda: PAPER.video_tokens(0), "a video of 0 frames"),
        (lambda: VisualLayout(side=0), "side is 0"),
        (lambda: VisualLayout(pinpoints=()), "pinpoints is empty"),
        (lambda: VisualLayout(pinpoints=((384, 385),)), "384 × 385 is not divisible into tiles of 384"),
    ],
)
def test_impossible_requests_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_grid_that_is_too_slim_to_be_pooled_is_named():
    slim = VisualLayout(4, 1, ((4, 400),), 1)
    with pytest.raises(ValueError, match="a grid of 1 × 100 patches cannot be pooled to 1 patches"):
        slim.image_tokens((4, 400))


@pytest.mark.parametrize("image", [(1, 1), (1, 5000), (5000, 1)])
def test_tiny_and_slim_images_have_plans(image):
    for budget in (2, 50, 400, 7290):
        assert 2 <= solve_image(image, budget, PAPER).tokens <= budget
    assert PAPER.image_tokens(image) <= 729 * 2 + 27


# ── The model follows the plans ───────────────────────────────────────────────────────────────────────────────────────


def small_model():
    torch.manual_seed(0)
    vision = siglip_vision_config(width=20, depth=2, heads=5, mlp_dim=28, image_size=14, patch_size=3)
    language = DecoderConfig(43, 24, 2, 6, 2, 36, qkv_bias=True)
    model = LlavaOneVision(
        VisionTransformer(replace(vision, pooling="mean")),
        Projector(20, 24),
        LanguageModel(language),
        layout=SMALL,
        placeholders=IDS,
    )
    return redraw_weights(model)


@pytest.mark.parametrize(
    "visuals",
    [
        [ImageInput((30, 50))],
        [ImageInput((1, 1))],
        [ImageInput((1, 5000))],
        [ImageInput((30, 50)), ImageInput((9, 7))],
        [VideoInput(1)],
        [VideoInput(60)],
        [ImageInput((60, 20)), VideoInput(7)],
    ],
)
@torch.no_grad()
def test_the_model_encodes_what_was_planned(visuals):
    model, counts = small_model(), set()
    for length in (30, 60, 120, 400):
        plans = solve_sequence(visuals, Context(length, text=8), SMALL)
        features = [
            model.encode_image(torch.randn(3, *visual.size), plan=plan)
            if isinstance(visual, ImageInput)
            else model.encode_video(torch.randn(visual.frames, 3, 14, 14), plan)
            for visual, plan in zip(visuals, plans, strict=True)
        ]
        sequence = build_sequence([[3, 4], *visuals, [5, 6]], SMALL, IDS, plans)
        assert len(sequence.token_ids) == 4 + sum(plan.tokens for plan in plans) <= length
        logits = model.logits(sequence.token_ids[None], features)
        assert logits.isfinite().all()
        counts.add(len(sequence.token_ids))
    # A single frame and a line of pixels have few tokens, whatever the budget.
    assert len(counts) > 1 or visuals in ([VideoInput(1)], [ImageInput((1, 5000))])


@torch.no_grad()
def test_a_plan_without_pooling_gives_the_published_embeddings():
    model, image = small_model(), torch.randn(3, 14, 28)
    plan = solve_image((14, 28), 10_000, SMALL)
    assert (plan.pinpoint, plan.side) == ((14, 28), 4) and plan.tokens == SMALL.image_tokens((14, 28))
    torch.testing.assert_close(
        model.visual_embeddings(model.encode_image(image, plan=plan)),
        model.visual_embeddings(model.encode_image(image)),
    )
    frames = torch.randn(3, 3, 14, 14)
    torch.testing.assert_close(
        model.visual_embeddings(model.encode_video(frames, solve_video(3, 1000, SMALL))),
        model.visual_embeddings(model.encode_video(frames)),
    )


@torch.no_grad()
def test_planned_frames_are_spread_over_the_video():
    model, frames = small_model(), torch.randn(9, 3, 14, 14)
    encoded = model.encode_video(frames, VideoPlan(3, 2, 13))
    torch.testing.assert_close(encoded.features, model.image_features(frames[[0, 4, 8]]))


@torch.no_grad()
def test_the_features_of_one_of_several_images_are_those_of_its_padded_square():
    model, image = small_model(), torch.randn(3, 7, 14)
    square = torch.cat([torch.zeros(3, 3, 14), image, torch.zeros(3, 4, 14)], dim=1)
    encoded = model.encode_image(image, tiled=False)
    torch.testing.assert_close(encoded.features, model.image_features(square[None]), atol=1e-5, rtol=1e-5)


def test_a_model_refuses_what_does_not_fit():
    model = small_model()
    with pytest.raises(ValueError, match="a video of 0 frames"):
        model.encode_video(torch.zeros(0, 3, 14, 14))
    for size in ((0, 5), (5, 0)):
        for tiled in (True, False):
            with pytest.raises(ValueError, match="an image of"):
                model.encode_image(torch.zeros(3, *size), tiled=tiled)
    image, video = model.encode_image(torch.randn(3, 9, 9), tiled=False), model.encode_video(torch.randn(4, 3, 14, 14))
    assert len(model.visual_embeddings(image)) == len(model.visual_embeddings(video)) == 17
    both = build_sequence([ImageInput((9, 9)), ImageInput((9, 9)), VideoInput(4)], SMALL, IDS).token_ids[None]
    model.logits(both, [image, image, video])
    for features in ([image, video, image], [video, image, image]):
        with pytest.raises(ValueError, match="an image has positions of a video, or a video those of an image"):
            model.logits(both, features)
    for features in ([image, image], [image, image, video, video], None):
        with pytest.raises(ValueError, match="image tokens, but the images take"):
            model.logits(both, features)
