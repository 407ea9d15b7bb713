"""The lab: designs, equal compute, constrained answers, models of every recipe, and effects from measurements."""

from dataclasses import replace

import pytest
import torch

from data.toybox.heldout import sample_scenes
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_07_recipes.experiment.data import EvaluationSet, encode_rows
from lessons.lesson_07_recipes.experiment.encoders import WIDTH, CaptionedImages, clip_loss, untrained_clip
from lessons.lesson_07_recipes.experiment.evaluate import answer_token_ids, is_greedy_answer
from lessons.lesson_07_recipes.experiment.flops import affordable_steps, training_flops
from lessons.lesson_07_recipes.experiment.levels import (
    ENCODER_ARMS,
    FACTORS,
    IMAGE_TOKENS,
    LEVEL_NAMES,
    lab_design,
    recipe_name,
)
from lessons.lesson_07_recipes.experiment.scores import largest_interaction, main_effect, mean_score, run_scores
from lessons.lesson_07_recipes.experiment.train import LabSettings, PooledProjector, build_model, recipe_loss
from lessons.lesson_07_recipes.model.experts import SparseMLP

TURNS = [[("what color is the star?", "red")], [("what shape is it?", "circle")]]


def levels(*signs):
    return dict(zip(FACTORS, signs, strict=True))


def arms_with(score):
    """Measurements of both arms of a design of 16 runs, whose scores are a function of the recipe."""
    arms = {name: {"runs": 16} for name in ENCODER_ARMS.values()}
    for number, recipe in enumerate(lab_design(16).recipes()):
        arms[ENCODER_ARMS[recipe["encoder"]]][f"run_{number}_unseen"] = score(recipe)
    return arms


# ── Designs and effects ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("runs", "resolution"), [(8, 3), (16, 5)])
def test_half_of_a_designs_runs_have_each_encoder(runs, resolution):
    design = lab_design(runs)
    assert design.resolution == resolution and len(design.recipes()) == runs
    assert sum(recipe["encoder"] for recipe in design.recipes()) == 0
    with pytest.raises(ValueError, match="no design has 12 runs"):
        lab_design(12)


def test_a_recipe_is_named_by_its_levels():
    assert recipe_name(levels(-1, 1, 1, -1, 1)) == "contrastive, Q-Former, sparse, captions, 64 tokens"
    assert LEVEL_NAMES.keys() == set(FACTORS)


def test_effects_are_recovered_from_the_measurements_of_both_arms():
    arms = arms_with(lambda recipe: 0.5 + 0.1 * recipe["data"] - 0.02 * recipe["encoder"] * recipe["connector"])
    assert run_scores(arms, "unseen").shape == (16,)
    assert main_effect("data")(arms) == pytest.approx(0.2)
    assert main_effect("encoder")(arms) == pytest.approx(0.0, abs=1e-12)
    assert largest_interaction(arms) == pytest.approx(0.04)
    assert mean_score(arms) == pytest.approx(0.5)


# ── Equal compute ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_operations_of_a_linear_layer():
    layer, x = torch.nn.Linear(3, 5, bias=False), torch.randn(7, 3)
    assert training_flops(lambda: layer(x)) == 3 * 2 * 7 * 3 * 5
    assert affordable_steps(1000, 300) == 3 and affordable_steps(10, 300) == 1


def operations(recipe):
    model, (_, tokenizer) = build_model(recipe, 64), load_language_model()
    rows = encode_rows(tokenizer, torch.randn(2, 64, WIDTH), TURNS, IMAGE_TOKENS[recipe["resolution"]])
    return training_flops(lambda: recipe_loss(model, (rows.features, rows.token_ids, rows.answer_mask, rows.segments)))


def test_more_image_tokens_and_experts_cost_more_operations():
    cheapest = operations(levels(-1, -1, -1, 1, -1))
    assert operations(levels(-1, -1, -1, 1, 1)) > 2 * cheapest
    assert operations(levels(-1, -1, 1, 1, -1)) > 1.3 * cheapest
    assert operations(levels(1, -1, -1, -1, -1)) == cheapest  # encoder and data cost nothing in a step of equal length


# ── Models ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("signs", [(-1, -1, -1, 1, -1), (1, 1, 1, 1, -1), (-1, 1, -1, 1, 1), (1, -1, 1, 1, 1)])
def test_every_part_of_a_recipe_gets_a_gradient(signs):
    torch.manual_seed(0)
    recipe, (_, tokenizer) = levels(*signs), load_language_model()
    model = build_model(recipe, 64)
    assert any(isinstance(module, SparseMLP) for module in model.modules()) == (recipe["language model"] > 0)
    rows = encode_rows(tokenizer, torch.randn(2, 64, WIDTH), TURNS, IMAGE_TOKENS[recipe["resolution"]])
    loss = recipe_loss(model, (rows.features, rows.token_ids, rows.answer_mask, rows.segments))
    loss.mean().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == [] and loss.terms.item() == rows.answer_mask.sum()


def test_patches_are_pooled_in_squares():
    projector = PooledProjector(3, 4, 16, 4)
    features = torch.zeros(1, 16, 3)
    features[0, [0, 1, 4, 5]] = torch.tensor([4.0, 8.0, 12.0])  # the upper left square of the 4 × 4 grid
    expected = projector.mlp(torch.tensor([[4.0, 8.0, 12.0]]))
    torch.testing.assert_close(projector(features)[0, :1], expected)
    assert projector(features).shape == (1, 4, 4)
    with pytest.raises(ValueError, match="16 patches do not pool to 9 tokens"):
        PooledProjector(3, 4, 16, 9)


@pytest.mark.parametrize("captioning", [False, True])
def test_only_the_captioning_loss_reaches_the_caption_decoder(captioning):
    torch.manual_seed(0)
    _, tokenizer = load_language_model()
    batches = CaptionedImages(sample_scenes("train", 0, 40, (1, 1)), tokenizer, 0, 8)
    pixels, token_ids, segments = batches(3)
    assert len({tuple(row) for row in token_ids.tolist()}) == len(pixels) == 8
    ends = (token_ids == batches.end) & (segments == 0)
    assert ends.sum(dim=1).tolist() == [1] * 8  # the first end token counts as part of the caption
    model = untrained_clip(tokenizer.vocab_size, batches.token_ids.shape[1], batches.end, captioning=captioning)
    clip_loss(model, (pixels, token_ids, segments)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert hasattr(model, "decoder") == captioning


# ── Evaluation ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_greedy_answers_are_chosen_among_the_candidates():
    candidates, logits = [[1, 2], [1, 3, 4], [5, 2]], torch.zeros(3, 8)
    logits[0, 7], logits[0, 1] = 9.0, 2.0  # token 7 starts no candidate
    logits[1, 3] = 1.0
    assert is_greedy_answer(logits, [1, 3, 4], candidates)
    assert not is_greedy_answer(logits, [1, 2], candidates)
    logits[1, 5] = 3.0  # token 5 continues no candidate that begins with 1
    assert is_greedy_answer(logits, [1, 3, 4], candidates)
    assert not is_greedy_answer(logits, [5, 2], candidates)


def test_the_candidates_include_the_tokens_of_an_answer_in_a_conversation():
    _, tokenizer = load_language_model()
    rows = encode_rows(tokenizer, torch.zeros(1, 64, WIDTH), TURNS[:1], 16)
    answer = rows.token_ids[0][rows.answer_mask[0]].tolist()
    assert answer in answer_token_ids(tokenizer, "color")
    assert answer not in answer_token_ids(tokenizer, "shape")


def test_the_settings_choose_the_question_types_and_chance_follows_from_them():
    every = LabSettings(runs=8, budget=1.0, encoder_budget=1.0, scenes=4)
    assert every.scene_setting.question_types == ("color", "shape", "size", "texture", "place", "existence")
    easy = replace(every, question_types=("color", "existence"))
    assert easy.scene_setting.question_types == ("color", "existence") and easy.scene_setting.objects == (1, 1)
    assert len(easy.training_scenes(0)) == 4
    features, turns = torch.zeros(3, 64, WIDTH), [TURNS[0]] * 3
    assert EvaluationSet(features, turns, ["color", "existence", "existence"]).chance == pytest.approx(9 / 24)
    with pytest.raises(ValueError, match="question types count need more objects"):
        _ = replace(every, question_types=("count",)).scene_setting
