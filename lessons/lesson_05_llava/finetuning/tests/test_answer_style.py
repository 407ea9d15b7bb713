"""The arm of the new answer style: sentences are true to their questions, and all methods start from one model."""

import pytest
import torch

from data.toybox.conversations import scene_setting
from data.toybox.questions import Question, question_at
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_05_llava.experiment import train
from lessons.lesson_05_llava.finetuning.experiment import answer_style
from lessons.lesson_05_llava.finetuning.experiment.arms import ARMS
from shared.course.context import RunContext
from shared.pretrained.digest import weights_digest
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS
from shared.transformer import DecoderConfig

SETTING = scene_setting((1, 1))


@pytest.fixture
def small_models(monkeypatch):
    """Replace the shipped encoder and language model by untrained ones, so small that the arm takes seconds."""
    tokenizer = Tokenizer.train(["the star is at the top left.\n"] * 4, 300, special_tokens=SPECIAL_TOKENS)

    def vision_encoder():
        torch.manual_seed(0)
        config = clip_vision_config(image_size=32, patch_size=8, width=16, depth=2, heads=2, mlp_dim=16)
        return VisionTransformer(config).eval().requires_grad_(False)

    def language_model():
        torch.manual_seed(1)
        model = LanguageModel(DecoderConfig(tokenizer.vocab_size, 64, 1, 2, 1, 64, tied=True))
        return model.eval().requires_grad_(False), tokenizer

    monkeypatch.setattr(train, "load_vision_encoder", vision_encoder)
    monkeypatch.setattr(train, "load_language_model", language_model)


@pytest.mark.parametrize(
    ("question_type", "answer", "expected"),
    [
        ("color", "red", "it is red."),
        ("shape", "star", "it is a star."),
        ("size", "large", "it is large."),
        ("texture", "striped", "it is striped."),
        ("place", "left", "it is on the left."),
        ("existence", "yes", "yes, there is one."),
        ("existence", "no", "no, there is none."),
    ],
)
def test_the_sentence_contains_the_answer(question_type, answer, expected):
    assert answer_style.sentence(Question(question_type, "", answer)) == expected


def test_every_question_about_one_object_has_a_sentence():
    for number in range(60):
        question_type = SETTING.question_types[number % len(SETTING.question_types)]
        _, question = question_at("test", 0, number, question_type, SETTING.objects)
        text = answer_style.sentence(question)
        assert text.endswith(".") and question.answer in text, question


def test_a_question_about_several_objects_has_none():
    with pytest.raises(ValueError, match="no sentence for the count question"):
        answer_style.sentence(Question("count", "how many stars are there?", "two"))


def test_every_trial_starts_from_the_same_model_and_the_best_one_is_measured(small_models, tmp_path, monkeypatch):
    starts, losses = [], iter(range(100))
    original = answer_style.prepare_tuning

    def recorded(model, tuning, rank):
        starts.append((tuning, rank, weights_digest(model)))
        return original(model, tuning, rank)

    monkeypatch.setattr(answer_style, "prepare_tuning", recorded)
    monkeypatch.setattr(answer_style, "mean_loss", lambda *_: float(next(losses)))
    (arm,) = (each for each in ARMS if each.name == "new answer style")
    settings = arm.presets["smoke"] | {"held_out": 6}
    settings["style"] = settings["style"] | {"ranks": [2, 3]}
    measured = answer_style.adapt_answer_style(RunContext(0, "toybox", "cpu", tmp_path), **settings)
    assert len({digest for *_, digest in starts}) == 1
    assert [(tuning, rank) for tuning, rank, _ in starts] == [("full", 2)] * 2 + [
        (tuning, rank) for tuning in ("lora", "dora", "qlora") for rank in (2, 2, 3, 3)
    ]
    # Each loss is larger than the one before, so the first trial is the best.
    assert all(measured[f"{tuning}_learning_rate"] == 2e-3 for tuning in train.TUNINGS)
    assert all(measured[f"{tuning}_rank"] == 2 for tuning in train.TUNINGS)
    assert all(0 <= measured[f"{tuning}_sentences"] <= 1 for tuning in train.TUNINGS)
    assert {"words_before", "sentences_before", "lora_sentences_color"} <= measured.keys()


def test_only_the_language_model_is_adapted(small_models, tmp_path):
    (arm,) = (each for each in ARMS if each.name == "new answer style")
    recipe = train.Recipe(scenes=8, batch_size=4, objects=(1, 1))
    context = RunContext(0, "toybox", "cpu", tmp_path)
    start, tokenizer = train.untrained_llava("cpu")
    source = train.data_source(start, tokenizer, recipe, context)
    style = answer_style.StyleRecipe(**arm.presets["smoke"]["style"])
    for tuning in ("full", "lora"):
        model, _ = answer_style.best_trial(source, recipe, style, tuning, context)
        for name in ("projector", "vision_encoder"):
            assert weights_digest(getattr(model, name)) == weights_digest(getattr(start, name)), (tuning, name)
        assert weights_digest(model.language_model) != weights_digest(start.language_model)
