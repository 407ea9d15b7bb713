"""The arms do what their names say: who sees, what is loss_mask, which weights move; and nothing held out is ever trained on."""

from collections import Counter, defaultdict

import pytest
import torch

from data.toybox.heldout import is_held_out, scene_at
from data.toybox.questions import QUESTION_TYPES
from data.toybox.scene import Scene, SceneObject
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_05_llava.experiment import conversations, exact, measure, training
from lessons.lesson_05_llava.experiment import lesson as experiment
from lessons.lesson_05_llava.model import encode_interview, loss_mask
from shared.course.lesson import Arm
from shared.pretrained.digest import weights_digest
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS
from shared.transformer import DecoderConfig

WORLD = conversations.world_of((1, 3))


@pytest.fixture(scope="module")
def tokenizer():
    text = "what is there? a red circle and two blue stars\nhow many red things are there? zero\nwhere is the moon? top left\n"
    return Tokenizer.train([text] * 4, 320, special_tokens=SPECIAL_TOKENS)


@pytest.fixture
def ends(tokenizer, monkeypatch):
    """An untrained eye and language model, so small that an arm takes a second."""

    def eye():
        torch.manual_seed(0)
        config = clip_vision_config(image_size=32, patch_size=8, width=16, depth=2, heads=2, mlp_dim=16)
        return VisionTransformer(config).eval().requires_grad_(False)

    def language():
        torch.manual_seed(1)
        model = LanguageModel(DecoderConfig(tokenizer.vocab_size, 16, 1, 2, 1, 16, tied=True))
        return model.eval().requires_grad_(False), tokenizer

    monkeypatch.setattr(training, "load_vision_encoder", eye)
    monkeypatch.setattr(training, "load_language_model", language)


def run(name, folder):
    arm = next(each for each in experiment.ARMS if each.name == name)
    function = {experiment.TRAIN: training.train_llava, experiment.LENGTHS: training.train_lengths}[arm.function]
    return function(seed=0, data="toybox", device="cpu", folder=folder / "arm", resume=False, **arm.presets["smoke"])


# ── What is said ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_interview_is_the_text_that_the_language_model_has_read(tokenizer):
    turns = [("what is there?", "a red circle"), ("where is the moon?", "top left")]
    said = encode_interview(tokenizer, turns, image_token_counts=[3])
    text = "what is there? a red circle\nwhere is the moon? top left\n"
    special_tokens = tokenizer.special_tokens
    assert said.token_ids == [special_tokens["<|begin|>"], *[special_tokens["<image>"]] * 3, *tokenizer.encode(text)]
    own = [number for number, mine in zip(said.token_ids, said.loss_mask, strict=True) if mine]
    assert tokenizer.decode(own) == " a red circle\n top left\n"
    asked = encode_interview(tokenizer, [("where is the moon?", "")], image_token_counts=[3])
    assert tokenizer.decode(asked.token_ids[4:]) == "where is the moon?" and not any(asked.loss_mask)


def test_questions_are_of_all_kinds_and_their_answers_right(ends):
    model, tokenizer = training.new_llava("cpu")
    asked = conversations.asked(model, tokenizer, "test", 0, 24, WORLD, image=True, device="cpu")
    assert set(asked.kinds) == set(QUESTION_TYPES) and all(map(is_held_out, asked.scenes))
    assert len(asked.prompts[0]) > 4 and asked.features.shape == (24, 17, 32)
    fewer = conversations.world_of((1, 2))
    assert set(fewer.kinds) == set(QUESTION_TYPES) - {"count", "more"}
    with pytest.raises(ValueError, match="at most 1 things nothing can be asked of kind larger"):
        conversations.World((1, 1), ("colour", "larger"))


def test_all_kinds_of_questions_come_in_their_turn():
    world, answers = conversations.world_of((1, 1)), Counter()
    begins = dict(
        zip(world.kinds, ("what colour", "what shape", "what size", "what texture", "where", "is there"), strict=True)
    )
    scenes = [scene_at("train", 0, number, (1, 1)) for number in range(40)]
    for number, scene in enumerate(scenes):
        said = conversations.questions_about(scene, scenes[number - 1], 10, world, 0, number)
        times = {kind: sum(text.startswith(words) for text, _ in said) for kind, words in begins.items()}
        assert times == {kind: 1 + conversations.AGAIN.count(kind) for kind in world.kinds}
        answers.update(answer for _, answer in said)
    assert min(answers["yes"], answers["no"]) > 70  # of 200


def test_questions_about_scenes_that_allow_few_of_them_come_to_an_end():
    twins = Scene(
        (SceneObject("star", "red", "small", "plain", 20, 20), SceneObject("star", "red", "small", "plain", 20, 100)), 0
    )
    said = conversations.questions_about(twins, twins, 9, conversations.world_of((1, 3)), 0, 0)
    assert len(said) == 9


def test_nothing_held_out_is_trained_on(ends, monkeypatch):
    shown = []
    original = conversations.seen
    monkeypatch.setattr(
        conversations, "seen", lambda model, scenes, **about: shown.extend(scenes) or original(model, scenes, **about)
    )
    model, tokenizer = training.new_llava("cpu")
    about = {"image": True, "device": "cpu"}
    conversations.described(model, tokenizer, 0, 40, WORLD, **about)
    conversations.interviewed(model, tokenizer, 0, 40, 3, WORLD, **about)
    assert len(shown) == 80 and not any(map(is_held_out, shown))


def test_the_loss_asks_for_answers_or_with_prompts_for_all_words(ends):
    model, tokenizer = training.new_llava("cpu")
    pairs = conversations.interviewed(model, tokenizer, 0, 6, 3, WORLD, image=True, device="cpu")
    kept = {}
    for prompts in (False, True):
        batches = training.batches_of(model, pairs, batch_size=6, seed=0, prompts=prompts)
        _, tokens, wanted, segments = batches(0)
        kept[prompts] = wanted
        assert not wanted[tokens == model.image_token_id].any() and not wanted[segments < 0].any()
    assert (kept[True] & ~kept[False]).any() and not (kept[False] & ~kept[True]).any()
    assert torch.equal(
        kept[True], loss_mask(tokens, kept[False], segments, image_token_id=model.image_token_id, prompts=True)
    )


def test_who_is_blind_sees_nothing(ends):
    model, tokenizer = training.new_llava("cpu")
    about = {"image": False, "device": "cpu"}
    pairs = conversations.interviewed(model, tokenizer, 0, 6, 3, WORLD, **about)
    assert pairs.features.shape == (6, 0, 32) and not (pairs.tokens == model.image_token_id).any()
    asked = conversations.asked(model, tokenizer, "test", 0, 12, WORLD, **about)
    assert not any((prompt == model.image_token_id).any() for prompt in asked.prompts)


# ── What is trained ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["llava", "blind", "stage 2 alone", "prompts too", "sizes as they come", "lora", "dora", "qlora"]
)
def test_an_arm_trains_and_measures(name, ends, tmp_path):
    measured = run(name, tmp_path)
    assert measured["frozen_changed"] == 0.0
    assert 0 <= measured["answers"] <= 1 and 0 < measured["answers_commonest"] < 1
    assert {f"answers_{kind}" for kind in QUESTION_TYPES} <= measured.keys()
    assert {"bleu_4", "cider", "rouge_l"} <= measured.keys()
    assert ("first_loss_curve" in measured) == (name not in ("stage 2 alone", "blind"))
    adapted = name in ("lora", "dora", "qlora")
    assert (measured["trainable_fraction"] < 1) == adapted
    assert (measured["gradient_bytes"] < measured["weight_bytes"]) == adapted


def test_quantized_weights_take_fewer_bytes(ends, tmp_path):
    assert run("qlora", tmp_path / "a")["weight_bytes"] < run("lora", tmp_path / "b")["weight_bytes"]


def test_every_length_begins_where_the_first_stage_has_ended(ends, tmp_path, monkeypatch):
    begun = []
    original = training.learn

    def watched(model, tokenizer, stage, **about):
        if "language_model.*" in stage.trainable:
            begun.append(weights_digest(model))
        return original(model, tokenizer, stage, **about)

    monkeypatch.setattr(training, "learn", watched)
    measured = run("lengths", tmp_path)
    assert len(begun) == 2 and len(set(begun)) == 1
    assert measured["answers_curve"][0] == [1, 2] and {"answers_1", "answers_2"} <= measured.keys()


def test_wrong_answers_are_kept_with_their_questions(ends):
    model, tokenizer = training.new_llava("cpu")
    asked = conversations.asked(model, tokenizer, "test", 0, 24, WORLD, image=True, device="cpu")
    measured = measure.answer_accuracy(model, tokenizer, asked, "cpu", "answers")
    assert measured["answers_wrong"]
    for number, question, given, right in measured["answers_wrong"]:
        assert (question, right) == (asked.questions[number], asked.answers[number]) and given != right


def test_right_answers_are_counted_by_kind(ends, monkeypatch):
    model, tokenizer = training.new_llava("cpu")
    asked = conversations.asked(model, tokenizer, "test", 0, 24, WORLD, image=True, device="cpu")
    given = [answer if kind != "shape" else "nothing" for kind, answer in zip(asked.kinds, asked.answers, strict=True)]
    monkeypatch.setattr(measure, "answers_to", lambda *_: given)
    measured = measure.answer_accuracy(model, tokenizer, asked, "cpu", "answers")
    assert measured["answers_shape"] == 0 and measured["answers_colour"] == 1 and measured["answers"] == 22 / 24


def test_another_tuning_is_an_error(ends):
    model, _ = training.new_llava("cpu")
    with pytest.raises(ValueError, match="choose one of full, lora, dora, qlora"):
        training.adapt(model, "prefix", 4)


def test_the_mechanism_is_exact(tmp_path):
    measured = exact.check_mechanism(seed=0, data="toybox", device="cpu", folder=tmp_path, resume=False)
    assert measured.pop("prompt_gradient") == 0.0
    assert max(measured.values()) < 1e-5


def test_claims_read_what_arms_measure():
    """Every claim of every preset finds its numbers in what the arms of that preset return."""
    numbers = defaultdict(lambda: 0.5)
    arms = {arm.name: numbers for arm in experiment.ARMS}
    for claim in experiment.CLAIMS:
        assert isinstance(claim.measure(arms), float)
        assert claim.baseline is None or isinstance(claim.baseline(arms), float)
        assert set(claim.arms) <= arms.keys()
    assert all(isinstance(arm, Arm) for arm in experiment.ARMS)
