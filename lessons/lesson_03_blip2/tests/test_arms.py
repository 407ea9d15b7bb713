"""The arms do what their names say: texts are asked where they should be, batches hold no caption twice, frozen ends stay."""

from pathlib import Path

import pytest
import torch

from data.toybox.documents import documents
from data.toybox.heldout import is_held_out, sample_scenes
from data.toybox.language import is_true
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_03_blip2.experiment import bridges, exact, pairs
from lessons.lesson_03_blip2.experiment import lesson as experiment
from shared.errors import CourseError
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS
from shared.transformer import DecoderConfig

OBJECTS = (1, 2)


@pytest.fixture(scope="module")
def eye():
    torch.manual_seed(0)
    config = clip_vision_config(image_size=32, patch_size=8, width=16, depth=1, heads=2, mlp_dim=16)
    return VisionTransformer(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(documents("train", 0, 200, mixture=INTERVIEW_MIXTURE), 400, special_tokens=SPECIAL_TOKENS)


@pytest.fixture
def ends(eye, tokenizer, monkeypatch):
    """Untrained frozen ends, so small that an arm takes a second."""

    def language():
        torch.manual_seed(1)
        model = LanguageModel(DecoderConfig(tokenizer.vocab_size, 16, 1, 2, 1, 16, tied=True))
        return model.eval().requires_grad_(False), tokenizer

    monkeypatch.setattr(frozen, "load_eye", lambda: eye)
    monkeypatch.setattr(frozen, "load_language", language)


def test_a_question_is_given_and_its_answer_asked(eye, tokenizer):
    batch = pairs.questioned(eye, tokenizer, "train", 0, 8, OBJECTS, "cpu")
    asked = pairs.asked(batch.segments, batch.prompts)
    for row in range(8):
        given = tokenizer.decode(batch.given(torch.tensor([row]))[0].tolist())
        wanted = tokenizer.decode(batch.tokens[row][asked[row]].tolist())
        assert given.endswith("?") and wanted == f" {batch.texts[row]}\n"
    assert set(batch.kinds) == set(pairs.KINDS)
    assert batch.features.shape == (8, 17, 16)


def test_a_caption_is_asked_whole(eye, tokenizer):
    batch = pairs.captioned(pairs.looked_at(eye, sample_scenes("test", 0, 6, OBJECTS), "cpu"), tokenizer)
    asked = pairs.asked(batch.segments, batch.prompts)
    assert [tokenizer.decode(tokens[chosen].tolist()) for tokens, chosen in zip(batch.tokens, asked, strict=True)] == [
        f"{text}\n" for text in batch.texts
    ]
    assert all(map(is_held_out, batch.scenes))


def test_what_there_is_is_asked_and_told_in_short(eye, tokenizer):
    batch = pairs.told(pairs.looked_at(eye, sample_scenes("test", 0, 6, OBJECTS), "cpu"), tokenizer)
    asked = pairs.asked(batch.segments, batch.prompts)
    for row, text in enumerate(batch.texts):
        assert tokenizer.decode(batch.given(torch.tensor([row]))[0].tolist()) == "what is there?"
        assert tokenizer.decode(batch.tokens[row][asked[row]].tolist()) == f" {text}\n"
        assert is_true(text, batch.scenes[row])


def test_no_caption_comes_twice_in_a_batch_and_batches_repeat_themselves(eye, tokenizer):
    captions = pairs.captioned(pairs.looked_at(eye, sample_scenes("train", 0, 60, (1, 1)), "cpu"), tokenizer)
    assert len(set(captions.texts)) < 60  # there are fewer captions than scenes
    batches = pairs.UniqueCaptions(captions, 16, seed=3)
    for number in (0, 1):
        _, tokens, _ = batches(number)
        assert len({tuple(row) for row in tokens.tolist()}) == 16
        assert torch.equal(tokens, batches(number)[1])
    assert not torch.equal(batches(0)[1], batches(1)[1])


@pytest.mark.parametrize("bridge", ["q-former", "mean"])
def test_an_arm_trains_and_measures(bridge, ends, tmp_path):
    arm = {"q-former": "both stages", "mean": "mean pooling"}[bridge]
    settings = next(each for each in experiment.ARMS if each.name == arm).presets["smoke"]
    small = {"width": 16, "depth": 2, "queries": 3} if bridge == "q-former" else {}
    measured = bridges.train_bridge(
        seed=0,
        data="toybox",
        device="cpu",
        folder=tmp_path / arm,
        resume=False,
        **settings | small | {"steps": 2, "scenes": 24},
    )
    assert measured["frozen_changed"] == 0.0
    assert measured["image_tokens"] == (3 if bridge == "q-former" else 1)
    assert 0 <= measured["answers"] <= 1 and 0 < measured["answers_blind"] < 1
    if bridge == "q-former":
        assert 0 <= measured["retrieval"] <= 1 and len(measured["query_maps"][0]) == 3


def test_the_language_model_is_told_in_words_what_the_others_are_shown(ends):
    measured = bridges.read_captions(seed=0, data="toybox", device="cpu", folder=Path(), resume=False, held_out=6)
    assert 0 <= measured["answers"] <= 1 and 0 <= measured["seen_captions"] <= 1


def test_the_mechanism_is_exact(tmp_path):
    measured = exact.check_mechanism(seed=0, data="toybox", device="cpu", folder=tmp_path, resume=False)
    assert measured["mask_difference"] == 0 and max(measured.values()) < 1e-9


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "CHECKPOINTS_FOLDER", tmp_path)
    with pytest.raises(CourseError, match="lesson_02_clip does not exist; lesson 2 makes it"):
        load_vision_encoder()
