"""Arms match their names: equal budgets, points on the right tokens, disjoint splits, and claims that find numbers."""

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from math import prod
from random import Random

import pytest
import torch

from data.toybox.page.pages import page_at
from data.toybox.page.tensors import CHARACTERS, character_targets, render_tensors
from lessons.lesson_06_any_resolution.experiment import data, evaluate, exact, resizing, throughput, train
from lessons.lesson_06_any_resolution.experiment.arms import ARMS, BUDGETS, PRESETS, READER, RESIZINGS
from lessons.lesson_06_any_resolution.experiment.lesson import LESSON
from lessons.lesson_06_any_resolution.model import packing_efficiency
from shared.course.context import RunContext

SMALL = {"width": 16, "depth": 1, "heads": 2, "steps": 2, "test_pages": 8, "batch_size": 4}


def source(**changes):
    values = {"split": "train", "seed": 0, "kinds": ("receipt",), "resizing": "native", "budgets": (128,)}
    return data.PageSource(**values | {"batch_size": 4} | changes)


# ── Resizing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("way", RESIZINGS)
def test_no_way_of_resizing_takes_more_tokens_than_the_budget(way, budget):
    for height, width in ((168, 48), (40, 200), (96, 88)):
        page = resizing.resize_page(torch.rand(3, height, width), torch.rand(5, 2), way, budget)
        assert 0.5 * budget < sum(map(len, page.images)) <= budget
        assert page.places.shape == (5, resizing.VIEWS[way], 2) and page.image_numbers.max() < len(page.images)


@pytest.mark.parametrize("way", RESIZINGS)
def test_every_point_lies_on_its_character(way):
    """On a page whose only dark pixels are one small square, the patch at the square's center is the darkest."""
    for left, top in ((3, 4), (30, 80), (40, 160), (20, 40)):
        image = torch.zeros(3, 168, 48)
        image[:, top : top + 4, left : left + 4] = -3.0
        point = torch.tensor([[(left + 2) / 48, (top + 2) / 168]])
        page = resizing.resize_page(image, point, way, 128)
        for view in range(resizing.VIEWS[way]):
            image_of_view = page.images[int(page.image_numbers[0, view])]
            row, column = (int(index) for index in page.places[0, view])
            darkness = image_of_view.patches.mean(dim=1)
            assert darkness[row * image_of_view.grid[1] + column] == darkness.min()


def test_a_page_within_its_budget_keeps_every_pixel():
    page = page_at("train", 0, 0, data.SETTINGS["receipt"])
    (image,) = render_tensors([page])
    (patches,) = resizing.resize_page(image.float(), torch.zeros(0, 2), "native", 128).images
    assert patches.grid == (page.height // 8, page.width // 8) and len(patches) == 126
    assert patches.patches.sum() == image.sum()


def test_another_way_of_resizing_is_refused():
    with pytest.raises(ValueError, match="choose one of native, square, anyres"):
        resizing.resize_page(torch.rand(3, 16, 16), torch.zeros(0, 2), "crop", 64)


# ── Data ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", RESIZINGS)
def test_points_of_a_batch_are_on_their_own_page(way):
    batch = source(resizing=way, budgets=BUDGETS, kinds=("receipt", "chart"), batch_size=6)(0)
    page_of_image = torch.arange(6).repeat_interleave(len(batch.patches) // 6)
    if way != "anyres":
        image = batch.patches.image_index.flatten()[batch.tokens]
        assert torch.equal(page_of_image[image], batch.pages[:, None])
    assert batch.offsets.abs().max() <= 0.5 and (batch.classes < len(CHARACTERS)).all()
    assert (batch.patches.image_index.flatten()[batch.tokens] >= 0).all()


def test_the_token_of_a_point_is_the_patch_at_its_coordinates():
    pages = [page_at("train", 0, number, data.SETTINGS["receipt"]) for number in range(4)]
    batch = source()(0)
    points, classes = character_targets(pages)
    coordinates = batch.patches.coordinates.flatten(0, 1)[batch.tokens[:, 0]]
    sizes = torch.tensor([[page.height, page.width] for page in pages])
    expected = torch.cat([points[row][classes[row] >= 0].flip(-1) * sizes[row] / 8 for row in range(4)])
    assert torch.equal(coordinates, expected.long())
    torch.testing.assert_close(batch.offsets[:, 0], expected - expected.floor() - 0.5, atol=1e-5, rtol=0)


def test_unaligned_receipts_have_any_size():
    sizes = [page_at("train", 0, number, data.SETTINGS["unaligned receipt"]) for number in range(20)]
    assert len({page.width % 8 for page in sizes}) > 4
    batch = source(kinds=("unaligned receipt",))(0)
    assert (batch.patches.grids.prod(dim=1) <= 128).all() and batch.is_digit.any()


def test_kinds_and_budgets_take_turns():
    pages = source(kinds=("receipt", "chart"), budgets=BUDGETS)
    turns = [(pages.setting(number).kind, pages.budget(number)) for number in range(12)]
    assert turns[:6] == turns[6:] and len(set(turns[:6])) == 6
    assert source(area=16_384).setting(0).area == 16_384


def test_no_page_is_in_two_splits():
    entries = [
        {frozenset(page_at(split, 0, number, data.SETTINGS["receipt"]).entries) for number in range(150)}
        for split in ("train", "validation", "test")
    ]
    assert all(not one & other for one, other in pairwise([*entries, entries[0]]))


def test_menus_of_unseen_aspect_ratios_are_outside_the_range_of_training():
    aspects = {
        kind: [page.width / page.height for page in (page_at("test", 0, number, setting) for number in range(60))]
        for kind, setting in data.SETTINGS.items()
        if "menu" in kind
    }
    assert min(aspects["menu"]) > 0.45 and max(aspects["menu"]) < 2.2
    assert max(aspects["tall menu"]) < 0.4 and min(aspects["wide menu"]) > 2.5


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", RESIZINGS)
def test_an_arm_trains_and_measures(way, tmp_path):
    context = RunContext(0, "toybox", "cpu", tmp_path / way)
    measured = train.train_reader(context, resizing=way, kinds=("receipt", "chart"), budgets=(64, 128), **SMALL)
    for kind in ("receipt", "chart"):
        for budget in (64, 128):
            assert 0 <= measured[f"{kind}_{budget}_digits"] <= 1 and measured[f"{kind}_{budget}_tokens"] <= budget
            assert f"validation_{kind}_{budget}_digits" in measured


def test_other_kinds_of_pages_are_tested(tmp_path):
    context = RunContext(0, "toybox", "cpu", tmp_path)
    values = {"kinds": ("menu",), "test_kinds": ("tall menu",), "positions": "rotary"}
    measured = train.train_reader(context, **values, **SMALL)
    assert {"menu_128_digits", "tall menu_128_digits"} <= measured.keys()


def test_a_reader_learns_a_page_by_heart():
    torch.manual_seed(0)
    recipe = train.Recipe(width=32, depth=1, heads=2)
    model, batch = train.build_reader(recipe), replace(recipe.source("train", 0), batch_size=2)(0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = train.reading_loss(model, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_accuracy_counts_digits_and_groups_pages_by_aspect_ratio():
    class Oracle(torch.nn.Module):
        """Predict every class correctly but the digit 3."""

        def forward(self, batch):
            wrong = torch.where(batch.classes == 3, 4, batch.classes)
            return torch.nn.functional.one_hot(wrong, len(CHARACTERS)).float()

    pages = source(batch_size=8)
    measured = evaluate.reading_accuracy(Oracle(), pages, 24, "cpu")
    batches = [pages(index) for index in range(3)]
    digits = torch.cat([batch.classes[batch.is_digit] for batch in batches])
    assert measured["digits"] == pytest.approx((digits != 3).float().mean().item())
    aspects, accuracies = measured["by_aspect"]
    assert len(aspects) == evaluate.ASPECT_BINS and aspects == sorted(aspects) and 2 <= aspects[0] < aspects[-1] <= 5
    assert min(accuracies) < 1 and measured["tokens"] <= 128


def test_pages_beyond_the_requested_count_are_not_measured():
    """A model that is wrong from page 10 on is perfect on the first 10 of 16 pages."""

    class FirstPages(torch.nn.Module):
        batches = 0

        def forward(self, batch):
            wrong = 8 * self.batches + batch.pages >= 10
            self.batches += 1
            classes = torch.where(wrong, (batch.classes + 1) % len(CHARACTERS), batch.classes)
            return torch.nn.functional.one_hot(classes, len(CHARACTERS)).float()

    measured = [evaluate.reading_accuracy(FirstPages(), source(batch_size=8), count, "cpu") for count in (10, 11)]
    assert measured[0]["characters"] == measured[0]["digits"] == 1 and measured[1]["characters"] < 1
    assert len(measured[0]["by_aspect"][0]) == evaluate.ASPECT_BINS


# ── Packing and identities ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_sizes_of_photographs_have_their_quantiles():
    sizes = torch.tensor(throughput.photo_sizes(4000, Random(0)), dtype=torch.float64)
    for values, quantiles in ((sizes[:, 0] / sizes[:, 1], throughput.ASPECTS), (sizes.prod(dim=1), throughput.PIXELS)):
        for probability, expected in zip((0.05, 0.95), quantiles, strict=True):
            assert values.quantile(probability).item() == pytest.approx(expected, rel=0.05)


def test_packing_is_measured_on_the_same_images(tmp_path):
    context = RunContext(0, "toybox", "cpu", tmp_path)
    measured = throughput.measure_packing(context, images=60, batch_size=6, rounds=1, width=32, depth=1)
    assert 0.8 < measured["first-fit"] <= 1 and measured["padded_efficiency"] < 0.6
    assert measured["padded_efficiency_at_budget"] > 0.9 and measured["packed_speed"] > 0
    random = Random(0)
    grids = throughput.random_grids(throughput.photo_sizes(60, random), random)
    lengths = [prod(grid) for grid in grids]
    assert measured["lengths"] == lengths[:6] and max(lengths) <= throughput.ROW_LENGTH
    assert measured["padded_efficiency"] == packing_efficiency(lengths, 60, max(lengths))


def test_the_mechanism_is_exact(tmp_path):
    measured = exact.check_mechanism(RunContext(0, "toybox", "cpu", tmp_path))
    assert measured.pop("leak") == 0.0
    assert max(measured.values()) < 1e-5


# ── Claims ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def numbers_of(arm, preset):
    """Return numbers under the names that a reader measures in this preset; any name for the other arms."""
    if arm.function != READER:
        return defaultdict(lambda: 0.5)
    settings = arm.presets[preset]
    recipe = train.Recipe(**{name: settings[name] for name in ("kinds", "budgets") if name in settings})
    kinds = (*recipe.kinds, *settings.get("test_kinds", ()))
    names = [f"{kind}_{budget}_{key}" for kind in kinds for budget in recipe.budgets for key in ("digits", "tokens")]
    return dict.fromkeys(names, 0.5) | {"recipe": {"budgets": recipe.budgets}}


def test_claims_read_what_arms_measure():
    """Every claim of every preset finds its numbers in what the arms of that preset return."""
    for preset in PRESETS:
        measured = {arm.name: numbers_of(arm, preset) for arm in LESSON.arms if preset in arm.presets}
        for claim in LESSON.claims:
            if set(claim.arms) <= measured.keys():
                assert isinstance(claim.measure(measured), float)
                assert claim.baseline is None or isinstance(claim.baseline(measured), float)


def test_arms_to_be_compared_differ_in_one_setting():
    for names in (
        ("native", "square"),
        ("native, unaligned", "square, unaligned"),
        tuple(f"{way}, all budgets" for way in RESIZINGS),
    ):
        arms = [arm for arm in ARMS if arm.name in names]
        for preset in arms[0].presets:
            settings = [{**arm.presets[preset], "resizing": None} for arm in arms]
            assert all(other == settings[0] for other in settings)
    schemes = [arm for arm in ARMS if arm.name.startswith("positions: ")]
    assert all(arm.function == READER for arm in schemes)
    assert len({str({**arm.presets["full"], "positions": None}) for arm in schemes}) == 1
