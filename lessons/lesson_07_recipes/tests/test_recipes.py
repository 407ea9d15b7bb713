"""The weight of evidence, and the recipes picked from it."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from lessons.lesson_07_recipes import recipe_picker
from lessons.lesson_07_recipes.recipes.choices import AXES, CHOICES
from lessons.lesson_07_recipes.recipes.evidence import (
    ASSUMED_NOISE,
    Comparison,
    Confidence,
    PaperEvidence,
    Vote,
    confidence_level,
    judge,
    paper_evidence,
    verdict,
)
from lessons.lesson_07_recipes.recipes.picker import Budget, pick_recipe, size_text, within_budget
from lessons.lesson_07_recipes.recipes.report import recipe_lines
from lessons.lesson_07_recipes.recipes.table import AblationRow, Statement, load_tables
from shared.course.lesson import ROOT
from shared.errors import CourseError

CHOICE = CHOICES["train-vision-encoder"]
BUDGET = Budget(parameters=7e9, images=5e6, image_tokens=1024)


@pytest.fixture(scope="module")
def tables():
    return load_tables()


def row(value_a, value_b, benchmark="VQAv2", **fields):
    values = {
        "paper": "P",
        "arxiv": "2401.00001",
        "source": "table 1",
        "axis": "training",
        "choice": CHOICE.name,
        "setting_a": "frozen",
        "setting_b": "trained",
        "fixed": "all else",
        "lm_billions": 7.0,
        "phase": "instruction tuning",
        "unit": "percent",
        "status": "reported",
    }
    return AblationRow(**values | fields, benchmark=benchmark, value_a=value_a, value_b=value_b)


def comparison(*differences, noise=1.0, **fields):
    return Comparison(tuple(row(50, 50 + d, f"b{i}", **fields) for i, d in enumerate(differences)), noise)


def paper(*comparisons, name="P", favors=None, p_value=None):
    statement = Statement(name, "2401.00001", "s", "training", CHOICE.name, favors, p_value, "text", "reported")
    return PaperEvidence(name, tuple(comparisons), statement if favors else None)


# ── One comparison, one paper ────────────────────────────────────────────────────────────────────────────────────────


def test_an_effect_is_the_mean_difference_with_its_standard_error():
    measured = comparison(1.0, 2.0, 6.0)
    assert measured.effect == pytest.approx(3.0)
    assert measured.standard_error == pytest.approx((14 / 2) ** 0.5 / 3**0.5)  # squares 4 + 1 + 9, two degrees
    assert measured.ratio == pytest.approx(3.0 / measured.standard_error)
    assert comparison(3.0).standard_error is None
    assert comparison(-3.0).ratio == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("differences", "noise", "vote"),
    [
        ((1.5,), 1.0, Vote.B),
        ((-1.5,), 1.0, Vote.A),
        ((0.9,), 1.0, Vote.NONE),
        ((1.0,), 1.0, Vote.NONE),  # an effect as large as the noise does not count
        ((0.9,), 0.5, Vote.B),
        ((10.0, -6.0), 1.0, Vote.NONE),  # 2 points, but a standard error of 8
        ((3.0, 2.0), 1.0, Vote.B),
    ],
)
def test_an_effect_counts_beyond_noise_and_standard_error(differences, noise, vote):
    assert comparison(*differences, noise=noise).vote == vote


def test_a_paper_votes_with_its_comparisons():
    assert paper(comparison(3.0), comparison(0.1)).vote == Vote.B
    assert paper(comparison(0.1), comparison(-0.1)).vote == Vote.NONE
    assert paper(comparison(3.0), comparison(-3.0)).vote == Vote.MIXED


def test_a_significance_test_of_the_paper_decides_its_vote():
    assert paper(comparison(3.0), favors="none", p_value=0.03).vote == Vote.NONE
    assert paper(comparison(0.5), favors="a", p_value=0.001).vote == Vote.A


def test_a_statement_without_a_test_counts_only_where_there_are_no_numbers():
    assert paper(comparison(3.0), favors="a").vote == Vote.B
    assert paper(favors="a").vote == Vote.A


def test_the_weakest_deciding_comparison_gives_the_ratio():
    assert paper(comparison(6.0), comparison(3.0), comparison(0.5)).ratio == pytest.approx(3.0)
    assert paper(favors="b").ratio == 0.0


def test_rows_are_grouped_by_settings_and_surroundings(tables):
    evidence = {each.paper: each for each in paper_evidence(tables, "train-vision-encoder")}
    assert [len(each.rows) for each in evidence["Prismatic"].comparisons] == [12, 12]
    assert [len(each.rows) for each in evidence["Cambrian-1"].comparisons] == [16] * 5
    assert {each.noise for each in evidence["Idefics2"].comparisons} == {1.0}
    assert {each.noise for each in evidence["Prismatic"].comparisons} == {ASSUMED_NOISE}


# ── All papers ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("supporting", "opposing", "undecided", "ratio", "level"),
    [
        (2, 0, 0, 1.1, Confidence.HIGH),
        (2, 0, 1, 1.1, Confidence.HIGH),
        (2, 0, 2, 1.1, Confidence.MEDIUM),
        (2, 0, 3, 1.1, Confidence.LOW),
        (2, 1, 0, 1.1, Confidence.MEDIUM),
        (2, 1, 2, 1.1, Confidence.MEDIUM),
        (2, 2, 0, 9.0, Confidence.LOW),
        (3, 1, 4, 9.0, Confidence.LOW),
        (1, 0, 0, 2.0, Confidence.MEDIUM),
        (1, 0, 0, 1.9, Confidence.LOW),
        (1, 0, 1, 9.0, Confidence.LOW),
        (1, 1, 0, 9.0, Confidence.LOW),
        (0, 0, 3, 0.0, Confidence.LOW),
    ],
)
def test_confidence_follows_the_stated_rule(supporting, opposing, undecided, ratio, level):
    assert confidence_level(supporting, opposing, undecided, ratio) == level


def test_levels_are_ordered_and_the_lowest_stays():
    assert [level.rank for level in (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)] == [0, 1, 2]
    assert Confidence.HIGH.lowered() == Confidence.MEDIUM
    assert Confidence.LOW.lowered() == Confidence.LOW


def test_as_many_votes_either_way_decide_nothing():
    result = judge(CHOICE, [paper(comparison(5.0)), paper(comparison(-5.0))])
    assert (result.favors, result.confidence, result.setting) == (Vote.NONE, Confidence.LOW, "a")
    assert result.disagreement
    assert judge(CHOICES["balanced-data"], []).setting == "b", "the cheaper setting where nothing is known"


def test_the_minority_is_kept():
    papers = [paper(comparison(5.0), name=name) for name in "PQ"] + [paper(comparison(-5.0), name="R")]
    result = judge(CHOICE, papers)
    assert (result.favors, result.confidence) == (Vote.B, Confidence.MEDIUM)
    assert [each.paper for each in result.voting(Vote.A)] == ["R"]
    assert result.disagreement and result.papers == tuple(papers)


def test_two_results_of_one_paper_are_a_disagreement():
    assert judge(CHOICE, [paper(comparison(5.0), comparison(-5.0))]).disagreement
    assert not judge(CHOICE, [paper(comparison(5.0)), paper(comparison(0.0))]).disagreement


def test_setting_a_can_win():
    result = judge(CHOICE, [paper(comparison(-5.0), name=name) for name in "PQ"])
    assert (result.favors, result.setting, result.confidence) == (Vote.A, "a", Confidence.HIGH)


def test_known_disagreements_of_the_papers_are_found(tables):
    """One stage or two, frozen or trained encoder: Prismatic and Cambrian-1 report opposite results."""
    for choice in ("connector-pretraining", "train-vision-encoder"):
        votes = {each.paper: each.vote for each in verdict(tables, choice).papers}
        assert (votes["Prismatic"], votes["Cambrian-1"]) == (Vote.A, Vote.B), choice
        assert verdict(tables, choice).disagreement
    assert verdict(tables, "more-visual-tokens").voting(Vote.B)[0].paper == "MM1"
    assert verdict(tables, "higher-resolution").confidence == Confidence.HIGH


def test_an_unknown_choice_is_refused(tables):
    with pytest.raises(ValueError, match="no choice is called 'optimizer'"):
        verdict(tables, "optimizer")


# ── Recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_confidence_drops_far_from_the_evidence():
    papers = [paper(comparison(5.0), name=name) for name in "PQ"]
    result = judge(CHOICE, papers)
    assert within_budget(result, BUDGET) == result
    far = within_budget(result, replace(BUDGET, parameters=30e9))
    assert (far.confidence, far.favors) == (Confidence.MEDIUM, Vote.B)
    assert far.caution == "no supporting paper measures instruction tuning near 30B parameters"
    other_phase = within_budget(result, replace(BUDGET, images=1e9))
    assert (other_phase.confidence, "pretraining" in other_phase.caution) == (Confidence.MEDIUM, True)
    assert within_budget(result, replace(BUDGET, parameters=28e9)) == result, "four times 7B is near enough"
    assert within_budget(result, replace(BUDGET, parameters=1.75e9)) == result
    undecided = judge(CHOICE, [])
    assert within_budget(undecided, replace(BUDGET, parameters=30e9)) == undecided


def test_a_recipe_has_every_axis_with_evidence(tables):
    recipe = pick_recipe(Budget(3e9, 10e6, 1024), tables)
    assert tuple(each.axis for each in recipe.recommendations) == AXES
    assert all(each.verdicts and each.setting for each in recipe.recommendations)
    for recommendation in recipe.recommendations:
        assert {result.choice.axis for result in recommendation.verdicts} == {recommendation.axis}


@pytest.mark.parametrize("parameters", [0.6e9, 3e9])
@pytest.mark.parametrize("tokens", [64, 319, 320, 575, 576, 728, 729, 979, 10**6])
def test_a_recipe_stays_within_its_budget(tables, parameters, tokens):
    recipe = pick_recipe(Budget(parameters, 10e6, tokens), tables)
    assert 0 < recipe.tokens <= tokens
    assert 0 < recipe.lm_parameters < parameters


@pytest.mark.parametrize(
    ("tokens", "used", "connector", "resolution"),
    [
        (64, 64, "Perceiver", "one image at 384 px"),
        (320, 320, "Perceiver", "4 crops at 384 px"),
        (729, 729, "two-layer MLP", "one image at 384 px"),
        (980, 980, "2×2 patches", "4 overlapping crops"),
        (1176, 1176, "2×2 patches", "5 overlapping crops"),
        (9999, 2548, "2×2 patches", "12 overlapping crops"),
    ],
)
def test_more_tokens_buy_resolution(tables, tokens, used, connector, resolution):
    recipe = pick_recipe(Budget(3e9, 10e6, tokens), tables)
    assert recipe.tokens == used
    assert recipe["connector"].setting.startswith(connector)
    assert recipe["resolution"].setting.startswith(resolution)


def test_a_small_model_has_a_small_encoder(tables):
    assert "CLIP" in pick_recipe(Budget(1.4e9, 10e6, 1024), tables)["encoder"].setting
    assert "SigLIP" in pick_recipe(Budget(1.5e9, 10e6, 1024), tables)["encoder"].setting
    assert "51%" in pick_recipe(Budget(0.6e9, 10e6, 1024), tables)["encoder"].reason


def test_evidence_changes_the_recipe(tables):
    """Without Cambrian-1, the papers favor a second encoder and a frozen first one no less than a trained one."""
    without = replace(
        tables,
        rows=tuple(each for each in tables.rows if each.paper != "Cambrian-1"),
        statements=tuple(each for each in tables.statements if each.paper != "Cambrian-1"),
    )
    assert "DINOv2" in pick_recipe(Budget(3e9, 10e6, 1024), without)["encoder"].setting
    assert "DINOv2" not in pick_recipe(Budget(2e9, 10e6, 1024), without)["encoder"].setting, "too large for 2B"
    assert "freeze" in pick_recipe(Budget(3e9, 10e6, 1024), without)["training"].setting
    assert "train the" in pick_recipe(Budget(3e9, 10e6, 1024), tables)["training"].setting


def test_the_number_of_images_selects_the_phase(tables):
    small, large = (pick_recipe(Budget(3e9, images, 1024), tables) for images in (19e6, 20e6))
    assert "instruction mix with a limit per source" in small["data"].setting
    assert "interleaved" in large["data"].setting and "instruction mix" not in large["data"].setting
    assert "two epochs" in small["training"].setting and "two epochs" not in large["training"].setting
    assert "interleaved-data" in {result.choice.name for result in large["data"].verdicts}


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ((5.9e8, 1e6, 64), "590M parameters are too few; the evidence begins at 600M"),
        ((float("nan"), 1e6, 64), "parameters are too few"),
        ((1e9, 0, 64), "0 images are too few"),
        ((1e9, 1e6, 63), "63 tokens per image are too few; the least is 64"),
    ],
)
def test_a_budget_below_all_evidence_is_refused(budget, message):
    with pytest.raises(CourseError, match=message):
        Budget(*budget)


def test_sizes_are_written_as_they_are_read():
    assert [size_text(number) for number in (3e9, 1.5e6, 6e5, 12, 2e12)] == ["3B", "1.5M", "600K", "12", "2T"]
    assert [recipe_picker.parse_size("images", text) for text in ("3B", "1.5m", " 600K", "12")] == [3e9, 1.5e6, 6e5, 12]
    for text in ("", "3X", "-3B", "B", "1e9", "3 B", "1" * 40, "٣B"):
        with pytest.raises(CourseError, match=r"images .* is not a size; write it as 3B"):
            recipe_picker.parse_size("images", text)


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process; return its exit status, output and errors."""

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", ["recipe_picker", *arguments])
        status = recipe_picker.main()
        return status, *capsys.readouterr()

    return run_here


def test_the_command_prints_80_columns_on_an_ascii_terminal():
    arguments = ("--parameters", "3B", "--images", "10M", "--evidence")
    done = subprocess.run(
        [sys.executable, "-m", "lessons.lesson_07_recipes.recipe_picker", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "200"},
        capture_output=True,
        encoding="ascii",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "Recipe for 3B parameters, 10M images, at most 1024 tokens per image"
    assert max(map(len, lines)) <= 80
    assert "?" not in "".join(line for line in lines if line.lstrip().startswith(("+", "-", "=")))
    for axis in AXES:
        assert any(line.startswith(f"{axis}: ") for line in lines)


def test_colors_are_left_out_on_request(run, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[32m" in run("--parameters", "3B", "--images", "10M")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in run("--parameters", "3B", "--images", "10M")[1]


def test_training_tokens_stand_for_images(run):
    arguments = ("--parameters", "8B", "--image-tokens", "320")
    by_tokens = run(*arguments, "--training-tokens", "3.2B")
    assert by_tokens == run(*arguments, "--images", "10M")
    assert by_tokens[0] == 0 and "10M images" in by_tokens[1]


def test_json_holds_the_evidence(tables, run):
    recipe = pick_recipe(Budget(3e9, 10e6, 1024), tables)
    content = json.loads(recipe_picker.recipe_json(recipe))
    assert content["tokens"] == recipe.tokens
    entry = content["recommendations"][0]["verdicts"][0]
    result = recipe["encoder"].verdicts[0]
    assert (entry["favors"], entry["confidence"], entry["setting"]) == ("b", "high", "b")
    assert [each["vote"] for each in entry["papers"]] == [each.vote for each in result.papers]
    measured = entry["papers"][0]["comparisons"][0]
    assert measured["effect"] == pytest.approx(result.papers[0].comparisons[0].effect)
    assert len(measured["rows"]) == 16 and measured["rows"][0]["status"] == "reported"
    assert json.loads(run("--parameters", "3B", "--images", "10M", "--json")[1]) == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--parameters", "3X", "--images", "10M"), "parameters '3X' is not a size; write it as 3B"),
        (("--parameters", "3M", "--images", "10M"), "3M parameters are too few"),
        (("--parameters", "3B", "--images", "10M", "--image-tokens", "8"), "image tokens '8' is too small"),
    ],
)
def test_bad_arguments_give_one_line(run, arguments, message):
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    assert errors.startswith(f"error: {message}") and errors.count("\n") == 1


def test_every_vote_and_caution_is_in_the_text(tables):
    recipe = pick_recipe(Budget(60e9, 1e9, 320), tables)
    text = " ".join(" ".join(line.text.split()) for line in recipe_lines(recipe))
    for recommendation in recipe.recommendations:
        assert recommendation.setting in text and recommendation.reason in text
        for result in recommendation.verdicts:
            assert result.choice.question in text and result.caution in text
            assert all(f" {each.paper}: " in text for each in result.papers)
    assert "papers disagree" in text
