"""Arms match their names: blind arms get no image, losses are masked, frozen weights stay, test scenes are new."""

import re
from collections import Counter, defaultdict

import pytest
import torch

from data.toybox import conversations
from data.toybox.heldout import is_held_out, scene_at
from data.toybox.questions import QUESTION_TYPES
from data.toybox.scene import Scene, SceneObject, stream
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_05_llava.experiment import arms, data, evaluate, exact, train
from lessons.lesson_05_llava.experiment.lesson import LESSON
from lessons.lesson_05_llava.model import encode_interview, loss_mask
from shared.course.context import RunContext
from shared.course.lesson import Arm
from shared.pretrained.digest import weights_digest
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS
from shared.transformer import DecoderConfig

SETTING = conversations.scene_setting((1, 3))


@pytest.fixture(scope="module")
def tokenizer():
    text = (
        "what is there? a red circle and two blue stars\nhow many red objects are there? zero\n"
        "where is the moon? top left\n"
    )
    return Tokenizer.train([text] * 4, 320, special_tokens=SPECIAL_TOKENS)


@pytest.fixture
def small_models(tokenizer, monkeypatch):
    """Replace the shipped encoder and language model by untrained ones, so small that an arm takes a second."""

    def vision_encoder():
        torch.manual_seed(0)
        config = clip_vision_config(image_size=32, patch_size=8, width=16, depth=2, heads=2, mlp_dim=16)
        return VisionTransformer(config).eval().requires_grad_(False)

    def language_model():
        torch.manual_seed(1)
        model = LanguageModel(DecoderConfig(tokenizer.vocab_size, 16, 1, 2, 1, 16, tied=True))
        return model.eval().requires_grad_(False), tokenizer

    monkeypatch.setattr(train, "load_vision_encoder", vision_encoder)
    monkeypatch.setattr(train, "load_language_model", language_model)


def source(setting=SETTING, **changes):
    model, tokenizer = train.untrained_llava("cpu")
    return data.DataSource(model, tokenizer, setting, **changes)


def run(name, folder):
    arm = next(each for each in LESSON.arms if each.name == name)
    function = {arms.TRAIN_LLAVA: train.train_llava, arms.TRAIN_LENGTHS: train.train_lengths}[arm.function]
    return function(RunContext(0, "toybox", "cpu", folder / "arm"), **arm.presets["smoke"])


# ── Data ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_interview_equals_the_pretraining_text(tokenizer):
    turns = [("what is there?", "a red circle"), ("where is the moon?", "top left")]
    row = encode_interview(tokenizer, turns, image_token_counts=[3])
    text = "what is there? a red circle\nwhere is the moon? top left\n"
    special_tokens = tokenizer.special_tokens
    assert row.token_ids == [special_tokens["<|begin|>"], *[special_tokens["<image>"]] * 3, *tokenizer.encode(text)]
    in_loss = [token_id for token_id, is_answer in zip(row.token_ids, row.loss_mask, strict=True) if is_answer]
    assert tokenizer.decode(in_loss) == " a red circle\n top left\n"
    prompt = encode_interview(tokenizer, [("where is the moon?", "")], image_token_counts=[3])
    assert tokenizer.decode(prompt.token_ids[4:]) == "where is the moon?" and not any(prompt.loss_mask)


def test_evaluation_questions_are_of_all_types_about_held_out_combinations(small_models):
    questions = data.evaluation_questions(source(), "test", 0, 24)
    assert set(questions.types) == set(QUESTION_TYPES) and all(map(is_held_out, questions.scenes))
    assert len(questions.prompts[0]) > 4 and questions.features.shape == (24, 16, 16)
    fewer = conversations.scene_setting((1, 2))
    assert set(fewer.question_types) == set(QUESTION_TYPES) - {"count", "more"}
    with pytest.raises(ValueError, match="question types larger need more objects than 1"):
        conversations.SceneSetting((1, 1), ("color", "larger"))


def test_questions_about_a_scene_differ_and_all_types_occur():
    setting, types, answers = conversations.scene_setting((2, 3)), Counter(), Counter()
    starts = {
        "color": "what color is the (?!object nearest)",
        "shape": "what shape is the (?!object nearest)",
        "size": "what size",
        "texture": "what texture",
        "place": "where",
        "count": "how many",
        "existence": "is there",
        "relation": "is the .* (left of|right of|above|below) ",
        "nearest": "what .* nearest",
        "same": "are the .* same",
        "larger": "is the .* larger",
        "more": "are there more",
    }
    scenes = [scene_at("train", 0, number, (2, 3)) for number in range(60)]
    for number, scene in enumerate(scenes):
        turns = conversations.question_turns(
            scene, scenes[number - 1], 12, setting, stream(0, number, conversations.PURPOSE)
        )
        assert len({text for text, _ in turns}) == len(turns) >= 6
        types.update(name for text, _ in turns for name, start in starts.items() if re.match(start, text))
        answers.update(answer for _, answer in turns)
    assert set(types) == set(setting.question_types) and min(types.values()) > 15
    assert 0.6 < answers["yes"] / answers["no"] < 1.6


def test_questions_about_a_scene_that_allows_few_of_them_terminate():
    twins = Scene(
        (SceneObject("star", "red", "small", "plain", 20, 20), SceneObject("star", "red", "small", "plain", 20, 100)), 0
    )
    turns = conversations.question_turns(twins, twins, 9, SETTING, stream(0, 0, conversations.PURPOSE))
    assert turns and not any(text.startswith(("what color", "what size")) for text, _ in turns)


def test_no_held_out_combination_is_trained_on(small_models, monkeypatch):
    encoded = []
    original = data.DataSource.features
    monkeypatch.setattr(
        data.DataSource, "features", lambda self, scenes: encoded.extend(scenes) or original(self, scenes)
    )
    data.description_data(source(), 0, 40)
    data.question_data(source(), 0, 40, 3)
    assert len(encoded) == 80 and not any(map(is_held_out, encoded))


def test_the_loss_covers_answers_or_with_prompts_all_text(small_models):
    inputs = source()
    rows = data.question_data(inputs, 0, 6, 3)
    masks = {}
    for prompt_loss in (False, True):
        recipe = train.Recipe(batch_size=6, prompt_loss=prompt_loss)
        _, token_ids, mask, segments = train.training_batches(inputs.model, rows, recipe, 0)(0)
        masks[prompt_loss] = mask
        assert not mask[token_ids == inputs.model.image_token_id].any() and not mask[segments < 0].any()
    assert (masks[True] & ~masks[False]).any() and not (masks[False] & ~masks[True]).any()
    all_text = loss_mask(token_ids, masks[False], segments, image_token_id=inputs.model.image_token_id, prompts=True)
    assert torch.equal(masks[True], all_text)


def test_the_blind_baseline_gets_no_image(small_models):
    inputs = source(use_image=False)
    rows = data.question_data(inputs, 0, 6, 3)
    assert rows.features.shape == (6, 0, 16)
    assert not (rows.token_ids == inputs.model.image_token_id).any()
    questions = data.evaluation_questions(inputs, "test", 0, 12)
    assert not any((prompt == inputs.model.image_token_id).any() for prompt in questions.prompts)


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name",
    [
        "llava",
        "blind",
        "stage 2 alone",
        "loss on prompts",
        "last layer",
        "full fine-tuning",
        "lora",
        "dora",
        "qlora",
    ],
)
def test_an_arm_trains_and_measures(name, small_models, tmp_path):
    measured = run(name, tmp_path)
    assert measured["frozen_changed"] == 0.0
    assert 0 <= measured["answers"] <= 1 and 0 < measured["answers_commonest"] < 1
    assert {f"answers_{question_type}" for question_type in QUESTION_TYPES} <= measured.keys()
    assert {"bleu_4", "cider", "rouge_l"} <= measured.keys()
    assert ("first_loss_curve" in measured) == (name not in ("stage 2 alone", "blind"))
    adapted = name in ("lora", "dora", "qlora")
    assert (measured["trainable_fraction"] < 1) == adapted
    assert (measured["gradient_bytes"] < measured["weight_bytes"]) == adapted


def test_quantized_weights_take_fewer_bytes(small_models, tmp_path):
    assert run("qlora", tmp_path / "a")["weight_bytes"] < run("lora", tmp_path / "b")["weight_bytes"]


def test_every_length_starts_at_the_end_of_stage_1(small_models, tmp_path, monkeypatch):
    starts = []
    original = train.train_stage

    def recorded(inputs, stage, *rest):
        if "language_model.*" in stage.trainable:
            starts.append(weights_digest(inputs.model))
        return original(inputs, stage, *rest)

    monkeypatch.setattr(train, "train_stage", recorded)
    measured = run("lengths", tmp_path)
    assert len(starts) == 2 and len(set(starts)) == 1
    assert measured["answers_curve"][0] == [1, 2] and {"answers_1", "answers_2"} <= measured.keys()
    assert (
        measured["answers_shortest"] == measured["answers_1"] and measured["answers_longest"] == measured["answers_2"]
    )


def test_wrong_answers_are_recorded_with_their_questions(small_models):
    inputs = source()
    questions = data.evaluation_questions(inputs, "test", 0, 24)
    measured = evaluate.answer_accuracy(inputs.model, inputs.tokenizer, questions, "cpu", "answers")
    assert measured["answers_wrong"]
    for number, question, answer, correct in measured["answers_wrong"]:
        assert (question, correct) == (questions.questions[number], questions.answers[number]) and answer != correct


def test_accuracy_is_measured_by_type(small_models, monkeypatch):
    inputs = source()
    questions = data.evaluation_questions(inputs, "test", 0, 24)
    pairs = zip(questions.types, questions.answers, strict=True)
    answers = [answer if question_type != "shape" else "nothing" for question_type, answer in pairs]
    monkeypatch.setattr(evaluate, "generate_answers", lambda *_: answers)
    measured = evaluate.answer_accuracy(inputs.model, inputs.tokenizer, questions, "cpu", "answers")
    assert measured["answers_shape"] == 0 and measured["answers_color"] == 1 and measured["answers"] == 22 / 24


def test_an_unknown_tuning_is_an_error(small_models):
    with pytest.raises(ValueError, match="choose one of full, lora, dora, qlora"):
        train.prepare_tuning(source().model, "prefix", 4)


def test_the_mechanism_is_exact(tmp_path):
    measured = exact.check_mechanism(RunContext(0, "toybox", "cpu", tmp_path))
    assert measured.pop("prompt_gradient") == 0.0
    assert max(measured.values()) < 1e-5


def test_claims_read_what_arms_measure():
    """Every claim of every preset finds its numbers in what the arms of that preset return."""
    numbers = defaultdict(lambda: 0.5)
    measured = {arm.name: numbers for arm in LESSON.arms}
    for claim in LESSON.claims:
        assert isinstance(claim.measure(measured), float)
        assert claim.baseline is None or isinstance(claim.baseline(measured), float)
        assert set(claim.arms) <= measured.keys()
    assert all(isinstance(arm, Arm) for arm in LESSON.arms)
