"""The data and the arms: loss masks, unique captions, frozen models, and settings that every arm accepts."""

import importlib

import pytest
import torch

from data.toybox.documents import INTERVIEW_MIXTURE, documents
from data.toybox.heldout import is_held_out, sample_scenes
from data.toybox.language import is_true
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_03_blip2.experiment import arms, data, evaluate, pair_counts, train
from shared.course import checkpoint
from shared.course.context import RunContext
from shared.errors import CourseError
from shared.pretrained.digest import weights_digest
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS
from shared.transformer import DecoderConfig

OBJECTS = (1, 2)


@pytest.fixture(scope="module")
def vision_encoder():
    torch.manual_seed(0)
    config = clip_vision_config(image_size=32, patch_size=8, width=16, depth=1, heads=2, mlp_dim=16)
    return VisionTransformer(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(documents("train", 0, 200, mixture=INTERVIEW_MIXTURE), 400, special_tokens=SPECIAL_TOKENS)


@pytest.fixture
def small_models(vision_encoder, tokenizer, monkeypatch):
    """Untrained frozen models, so small that an arm takes a second."""

    def load_language_model():
        torch.manual_seed(1)
        model = LanguageModel(DecoderConfig(tokenizer.vocab_size, 16, 1, 2, 1, 16, tied=True))
        return model.eval().requires_grad_(False), tokenizer

    for module in (train, evaluate):
        monkeypatch.setattr(module, "load_vision_encoder", lambda: vision_encoder)
        monkeypatch.setattr(module, "load_language_model", load_language_model)


def test_the_loss_is_on_the_answer_and_not_on_the_question(vision_encoder, tokenizer):
    pairs = data.questions_and_answers(vision_encoder, tokenizer, "train", 0, 8, OBJECTS, "cpu")
    for row, loss_mask in enumerate(pairs.loss_mask()):
        prompt = tokenizer.decode(pairs.prompts(torch.tensor([row]))[0].tolist())
        target = tokenizer.decode(pairs.token_ids[row][loss_mask].tolist())
        assert prompt.endswith("?") and target == f" {pairs.texts[row]}\n"
    assert set(pairs.question_types) == set(data.QUESTION_TYPES)
    assert pairs.image_features.shape == (8, 16, 16)


def test_the_loss_is_on_the_whole_full_caption(vision_encoder, tokenizer):
    encoded = data.encode_scenes(vision_encoder, sample_scenes("test", 0, 6, OBJECTS), "cpu")
    pairs = data.full_captions(encoded, tokenizer)
    targets = [ids[mask].tolist() for ids, mask in zip(pairs.token_ids, pairs.loss_mask(), strict=True)]
    assert [tokenizer.decode(target) for target in targets] == [f"{text}\n" for text in pairs.texts]
    assert all(map(is_held_out, pairs.scenes))


def test_short_captions_follow_a_prompt_and_are_true(vision_encoder, tokenizer):
    encoded = data.encode_scenes(vision_encoder, sample_scenes("test", 0, 6, OBJECTS), "cpu")
    pairs = data.short_captions(encoded, tokenizer)
    for row, (text, loss_mask) in enumerate(zip(pairs.texts, pairs.loss_mask(), strict=True)):
        assert tokenizer.decode(pairs.prompts(torch.tensor([row]))[0].tolist()) == "what is there?"
        assert tokenizer.decode(pairs.token_ids[row][loss_mask].tolist()) == f" {text}\n"
        assert is_true(text, pairs.scenes[row])


def test_captions_are_unique_within_a_batch_and_batches_are_deterministic(vision_encoder, tokenizer):
    encoded = data.encode_scenes(vision_encoder, sample_scenes("train", 0, 60, (1, 1)), "cpu")
    captions = data.full_captions(encoded, tokenizer)
    assert len(set(captions.texts)) < 60  # there are fewer captions than scenes
    batches = data.UniqueCaptionBatches(captions, 16, seed=3)
    for number in (0, 1):
        _, token_ids, _ = batches(number)
        assert len({tuple(row) for row in token_ids.tolist()}) == 16
        assert torch.equal(token_ids, batches(number)[1])
    assert not torch.equal(batches(0)[1], batches(1)[1])


def test_fewer_captions_than_a_batch_make_smaller_batches(vision_encoder, tokenizer):
    encoded = data.encode_scenes(vision_encoder, sample_scenes("train", 0, 5, (1, 1)), "cpu")
    captions = data.full_captions(encoded, tokenizer)
    batch, *_ = data.UniqueCaptionBatches(captions, 16, seed=3)(0)
    assert len(batch) == len(set(captions.texts)) <= 5


@pytest.mark.parametrize("arm", ["both stages", "mean pooling"])
def test_an_arm_trains_and_measures(arm, small_models, tmp_path):
    settings = next(each for each in arms.ARMS if each.name == arm).presets["smoke"]
    with_queries = arm == "both stages"
    small = {"width": 16, "depth": 2, "queries": 3} if with_queries else {}
    context = RunContext(seed=0, data="toybox", device="cpu", folder=tmp_path / arm)
    measured = train.train_connector(context, **settings | small | {"steps": 2, "scenes": 24})
    assert measured["frozen_changed"] == 0.0
    assert measured["image_tokens"] == (3 if with_queries else 1)
    assert 0 <= measured["answers"] <= 1 and 0 < measured["answers_blind"] < 1
    if with_queries:
        assert 0 <= measured["retrieval"] <= 1 and len(measured["query_maps"][0]) == 3


@pytest.mark.parametrize("arm", ["pairs", "pairs, stage 2 alone"])
def test_every_number_of_pairs_starts_at_the_end_of_the_same_first_stage(arm, small_models, tmp_path, monkeypatch):
    starts, counts = [], []
    original = pair_counts.train_second_stage

    def recorded(context, recipe, model, pairs):
        starts.append(weights_digest(model.connector))
        counts.append((len(pairs.texts), pairs.question_types.count("caption")))
        return original(context, recipe, model, pairs)

    monkeypatch.setattr(pair_counts, "train_second_stage", recorded)
    settings = next(each for each in arms.ARMS if each.name == arm).presets["smoke"]
    small = {"width": 16, "depth": 2, "queries": 3, "scenes": 24, "held_out": 6}
    context = RunContext(seed=0, data="toybox", device="cpu", folder=tmp_path)
    measured = pair_counts.train_pair_counts(context, **settings | small)
    assert len(starts) == 2 and len(set(starts)) == 1
    assert counts == [(4, 2), (8, 4)]
    assert measured["answers_curve"] == [[4, 8], [measured["answers_4"], measured["answers_8"]]]


def test_more_pairs_than_there_are_is_an_error(small_models, tmp_path):
    context = RunContext(seed=0, data="toybox", device="cpu", folder=tmp_path)
    with pytest.raises(ValueError, match="50 pairs of 24 captions and 24 questions"):
        pair_counts.train_pair_counts(context, pair_counts=[50], steps=1, scenes=24)


def test_the_text_only_upper_bound_is_measured(small_models, tmp_path):
    context = RunContext(seed=0, data="toybox", device="cpu", folder=tmp_path)
    measured = evaluate.measure_text_upper_bound(context, held_out=6)
    assert 0 <= measured["answers"] <= 1 and 0 <= measured["seen_captions"] <= 1


def test_the_reference_equals_the_model(tmp_path):
    context = RunContext(seed=0, data="toybox", device="cpu", folder=tmp_path)
    measured = evaluate.check_against_reference(context)
    assert measured["mask_difference"] == 0 and max(measured.values()) < 1e-9


def test_a_missing_checkpoint_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHECKPOINTS_FOLDER", tmp_path)
    with pytest.raises(CourseError, match="lesson_02_clip does not exist; make it with `make checkpoint-2`"):
        load_vision_encoder()


@pytest.mark.parametrize("arm", arms.ARMS, ids=lambda arm: arm.name)
def test_every_preset_has_settings_that_its_arm_accepts(arm):
    module, _, name = arm.function.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    for settings in arm.presets.values():
        if name == "train_connector":
            train.ConnectorRecipe(**settings)
        elif name == "train_pair_counts":
            recipe = train.ConnectorRecipe(**{key: settings[key] for key in settings if key != "pair_counts"})
            assert max(settings["pair_counts"]) <= 2 * recipe.scenes
        else:
            assert settings.keys() <= {"held_out"}
