"""The arms do what their names say: episodes follow one rule, answers stand where they are asked, frozen ends stay."""

import importlib
import inspect

import pytest
import torch

from data.toybox.episodes import HELD_OUT_CHOOSING
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.evaluation import cross_entropy_bits
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_04_flamingo.experiment import episodes as rooms
from lessons.lesson_04_flamingo.experiment import exact, few_shot, measure
from lessons.lesson_04_flamingo.experiment import lesson as experiment
from lessons.lesson_04_flamingo.model import Flamingo, FlamingoConfig, ResamplerConfig
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS
from shared.transformer import DecoderConfig


@pytest.fixture(scope="module")
def eye():
    torch.manual_seed(0)
    config = clip_vision_config(image_size=32, patch_size=16, width=16, depth=1, heads=2, mlp_dim=16)
    return VisionTransformer(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([" colour shape? circle.\n size texture? small.\n"] * 4, 300, special_tokens=SPECIAL_TOKENS)


@pytest.fixture(scope="module")
def gallery(eye):
    return rooms.Gallery.of(eye, 5, 20, "cpu")


def language_of(tokenizer):
    torch.manual_seed(1)
    return LanguageModel(DecoderConfig(tokenizer.vocab_size, 16, 2, 2, 1, 16, tied=True)).eval()


def kinds_of(line):
    return line.question.strip(" ?").split()


@pytest.mark.parametrize("held_out", [False, True])
def test_an_episode_answers_what_its_rule_says_of_what_it_shows(held_out, gallery):
    for number in range(12):
        rule = rooms.rule_of(5, number, held_out=held_out)
        assert (rule in HELD_OUT_CHOOSING) == held_out
        for line in rooms.lines_of(gallery, 5, number, 4, held_out=held_out):
            kinds = kinds_of(line)
            first = next(kind for kind in rule if kind in kinds)
            assert len(kinds) in (2, 3) and kinds == [kind for kind in rooms.KINDS if kind in kinds]
            assert line.answer == f" {getattr(gallery.scenes[line.image].objects[0], first)}.\n"


def test_lines_with_rules_of_their_own_end_in_the_same_question(gallery):
    told = [rooms.lines_of(gallery, 5, number, 5, held_out=True) for number in range(30)]
    mixed = [rooms.lines_of(gallery, 5, number, 5, held_out=True, mixed=True) for number in range(30)]
    assert [lines[-1] for lines in told] == [lines[-1] for lines in mixed]
    examples = [[lines[:-1] for lines in some] for some in (told, mixed)]
    assert [[line[:2] for line in lines] for lines in examples[0]] == [
        [line[:2] for line in lines] for lines in examples[1]
    ]
    assert examples[0] != examples[1]


def test_answers_stand_where_they_are_asked(gallery, tokenizer):
    lines = [rooms.lines_of(gallery, 5, number, count) for number, count in enumerate((3, 1, 2))]
    asked = rooms.laid_out(lines, tokenizer)
    for row, episode in enumerate(lines):
        assert asked.rows.images[row, : len(episode)].tolist() == [line.image for line in episode]
        for number, (line, (first, last)) in enumerate(zip(episode, asked.answers[row], strict=True)):
            assert tokenizer.decode(asked.rows.tokens[row, first:last].tolist()) == line.answer
            asking = len(tokenizer.encode(line.question))
            assert asked.rows.tokens[row, first - asking - 1] == tokenizer.special_tokens[rooms.IMAGE]
            assert (asked.rows.looks[row, first - asking - 1 : last] == number).all()
            assert asked.wanted[row, first:last].all()
        assert asked.wanted[row].sum() == sum(last - first for first, last in asked.answers[row])
    assert gallery.seen(asked.rows.images).shape == (3, 3, 5, 16)  # four patches and the class token
    with pytest.raises(ValueError, match="no lines"):
        rooms.laid_out([[]], tokenizer)


def test_one_reading_asks_what_prompts_of_each_length_would(eye, gallery, tokenizer):
    """Line k of a long row is answered as the last line of a row that ends there."""
    model = few_shot.small_flamingo(eye, language_of(tokenizer), latents=2, depth=1).eval()
    with torch.no_grad():
        for parameter in (*model.inserted.parameters(), *model.resampler.parameters()):
            parameter.normal_(std=0.5)
    episodes = [rooms.lines_of(gallery, 5, number, 4) for number in range(6)]
    # Make every third answer what the model says, so that there is something to count.
    for number in range(0, 6, 3):
        for place in range(4):
            asked = rooms.laid_out([episodes[number][: place + 1]], tokenizer)
            guesses = model(
                asked.rows.tokens, model.media(gallery.seen(asked.rows.images)), asked.rows.looks, asked.rows.segments
            )
            first, _ = asked.answers[0][-1]
            said = tokenizer.decode([int(guesses[0, first - 1].argmax())])
            line = episodes[number][place]
            episodes[number][place] = line._replace(answer=said)
    together = measure.accuracies(model, gallery, rooms.laid_out(episodes, tokenizer))
    apart = [
        measure.accuracies(model, gallery, rooms.laid_out([lines[: place + 1] for lines in episodes], tokenizer))[-1]
        for place in range(4)
    ]
    assert together == apart and max(together) > 0
    assert measure.accuracies(model, gallery, rooms.laid_out(episodes, tokenizer), exchanged=True) != together


@pytest.mark.parametrize("arm", ["flamingo", "without gates", "language learns", "scalar gates", "episodes alone"])
def test_an_arm_trains_and_measures(arm, eye, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(frozen, "load_eye", lambda: eye)
    monkeypatch.setattr(frozen, "load_language", lambda: (language_of(tokenizer), tokenizer))
    monkeypatch.setattr(few_shot, "TEXT_DOCUMENTS", 3)
    monkeypatch.setattr(measure, "TEST_SCENES", 20)
    presets = next(each for each in experiment.ARMS if each.name == arm).presets
    settings = experiment.SIZES["smoke"] | {
        name: value for name, value in presets["full"].items() if name in ("gates", "language_learns", "text_rows")
    }
    measured = few_shot.train_flamingo(
        seed=0, data="toybox", device="cpu", folder=tmp_path / arm, resume=False, **settings, latents=2, depth=1
    )
    assert measured["frozen_changed"] == float(arm == "language learns")
    names = ("held_out", "seen", "blind", "told", "best")
    assert all(0 <= measured[f"{name}_{count}"] <= 1 for name in names for count in measure.SHOTS)
    assert all(0 <= measured[f"reads_{kind}"] <= 1 for kind in rooms.KINDS)
    assert measured["best_8"] > measured["best_1"] > measured["best_0"] > 0.3
    begins_alike = measured["text_bits_start"] == pytest.approx(measured["text_bits_before"], rel=1e-6)
    assert begins_alike == (arm != "without gates") and measured["text_bits_after"] > 0
    assert ("attention_0_curve" in measured) == (arm != "without gates")
    for claim in experiment.LESSON.claims:
        if claim.arms == (arm,):
            assert isinstance(claim.measure({arm: measured}), float)


def test_closed_gates_cost_no_bit_of_text(eye, tokenizer):
    """Before it has learned anything, the model reads text as its language model does."""
    language = language_of(tokenizer)
    model = Flamingo(FlamingoConfig(ResamplerConfig(16, 2, 1, 2, 8), every=1), eye, language)
    documents = [[1, 5, 9, 7], [1, 8, 30]]
    assert measure.bits_in_text(model, documents) == pytest.approx(cross_entropy_bits(language, documents), rel=1e-6)


def test_the_mechanism_is_exact(tmp_path):
    measured = exact.check_mechanism(seed=0, data="toybox", device="cpu", folder=tmp_path, resume=False)
    assert measured["closed_gates_changed"] == measured["mask_difference"] == 0
    assert measured["latent_counts"] == 1 and measured["logit_difference"] < 1e-6


@pytest.mark.parametrize("arm", experiment.ARMS, ids=lambda arm: arm.name)
def test_every_preset_gives_settings_that_its_arm_knows(arm):
    module, name = arm.function.split(":")
    known = inspect.signature(getattr(importlib.import_module(module), name))
    for settings in arm.presets.values():
        known.bind(seed=0, data="toybox", device="cpu", folder=None, resume=False, **settings)
