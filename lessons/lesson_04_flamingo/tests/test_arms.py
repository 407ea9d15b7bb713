"""The arms do what their names say: episodes follow one rule, answers stand where they are asked, frozen ends stay."""

import pytest
import torch

from lessons.lesson_00_foundations.decoder.arms import SPECIALS
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.text import HELD_OUT_NAMING
from lessons.lesson_02_clip.model import VisionTower, VisionTowerConfig
from lessons.lesson_03_blip2.arms import frozen
from lessons.lesson_04_flamingo import claims
from lessons.lesson_04_flamingo.arms import episodes as rooms
from lessons.lesson_04_flamingo.arms import exact, few_shot
from shared.tokenizers import Tokenizer
from shared.transformer import DecoderConfig


@pytest.fixture(scope="module")
def eye():
    torch.manual_seed(0)
    config = VisionTowerConfig(image_size=32, patch_size=16, width=16, depth=1, heads=2, hidden=16)
    return VisionTower(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["small striped red circle: circle red.\n"] * 4, 300, specials=SPECIALS)


@pytest.mark.parametrize("held_out", [False, True])
def test_an_episode_says_what_its_rule_says_of_what_it_shows(held_out, eye, tokenizer):
    asked = rooms.episodes(eye, tokenizer, 5, 6, 2, held_out=held_out, device="cpu")
    image = tokenizer.specials["<image>"]
    for number in range(6):
        rule = rooms.rule_of(5, number, held_out=held_out)
        assert (rule in HELD_OUT_NAMING) == held_out
        tokens = asked.rows.tokens[number]
        assert asked.rows.images[number].tolist() == [3 * number, 3 * number + 1, 3 * number + 2]
        for line, (first, last) in enumerate(asked.answers[number]):
            wanted = rooms.answer_to(rooms.scene_of(5, 3 * number + line), rule)
            assert tokenizer.decode(tokens[first:last].tolist()) == f" {wanted}.\n"
            assert tokens[first - 2] == image and (asked.rows.looks[number, first:last] == line).all()
            assert asked.wanted[number, first:last].all()
        assert asked.wanted[number].sum() == sum(last - first for first, last in asked.answers[number])
    assert asked.images(torch.tensor([1, 4])).shape == (2, 3, 4, 16)


def test_without_examples_there_is_only_the_question(eye, tokenizer):
    asked = rooms.episodes(eye, tokenizer, 5, 3, 0, held_out=True, device="cpu")
    assert asked.rows.images.shape == (3, 1) and all(len(spans) == 1 for spans in asked.answers)
    with pytest.raises(ValueError, match="-1 shots"):
        rooms.episodes(eye, tokenizer, 5, 3, -1, held_out=True, device="cpu")


@pytest.mark.parametrize("arm", ["flamingo", "without gates", "language learns"])
def test_an_arm_trains_and_measures(arm, eye, tokenizer, monkeypatch, tmp_path):
    def language():
        torch.manual_seed(1)
        return LanguageModel(DecoderConfig(tokenizer.vocab_size, 16, 2, 2, 1, 16, tied=True)).eval(), tokenizer

    monkeypatch.setattr(frozen, "load_eye", lambda: eye)
    monkeypatch.setattr(frozen, "load_language", language)
    monkeypatch.setattr(few_shot, "SHOTS", (0, 1, 2, 4))
    monkeypatch.setattr(few_shot, "TEXT_DOCUMENTS", 3)
    settings = next(each for each in claims.ARMS if each.name == arm).presets["smoke"]
    measured = few_shot.train_flamingo(
        seed=0, data="toybox", device="cpu", folder=tmp_path / arm, resume=False, latents=2, depth=1, **settings
    )
    assert measured["frozen_changed"] == float(arm == "language learns")
    assert all(0 <= measured[f"held_out_{shots}"] <= 1 for shots in (0, 1, 2, 4))
    assert measured["text_bits_before"] > 0 and measured["text_bits_after"] > 0
    assert ("attention_0_curve" in measured) == (arm != "without gates")
    for claim in claims.CLAIMS:
        if claim.arms == (arm,) and "8" not in str(claim.name) and claim.name != "many-shots":
            assert isinstance(claim.measure({arm: measured}), float)


def test_closed_gates_cost_no_bit_of_text(eye, tokenizer):
    """Before it has learned anything, the model reads text as its language model does."""
    from lessons.lesson_00_foundations.decoder.arms import surprise
    from lessons.lesson_04_flamingo.model import Flamingo, FlamingoConfig, ResamplerConfig

    language = LanguageModel(DecoderConfig(tokenizer.vocab_size, 16, 2, 2, 1, 16, tied=True)).eval()
    model = Flamingo(FlamingoConfig(ResamplerConfig(16, 2, 1, 2, 8), every=1), eye, language)
    documents = [[1, 5, 9, 7], [1, 8, 30]]
    assert few_shot.bits_in_text(model, documents, "cpu") == pytest.approx(surprise(language, documents), rel=1e-6)


def test_the_mechanism_is_exact(tmp_path):
    measured = exact.check_mechanism(seed=0, data="toybox", device="cpu", folder=tmp_path, resume=False)
    assert measured["closed_gates_changed"] == measured["mask_difference"] == 0
    assert measured["latent_counts"] == 1 and measured["logit_difference"] < 1e-6
