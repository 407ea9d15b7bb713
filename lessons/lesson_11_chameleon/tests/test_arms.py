"""Arms match their names: documents, losses, drawings, the sweep's criterion, mixtures of tasks, and claims."""

import dataclasses
import math

import pytest
import torch

from data.toybox.heldout import HELD_OUT, mentions_held_out, sample_scenes
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_11_chameleon.experiment import (
    checkpoint,
    codebooks,
    data,
    evaluate,
    exact,
    stability,
    tokenizer_training,
    train,
)
from lessons.lesson_11_chameleon.experiment.arms import ARMS, DECODER, TASKS, TOKENIZERS
from lessons.lesson_11_chameleon.experiment.claims import CLAIMS
from lessons.lesson_11_chameleon.model import BlockDesign, split_spans
from lessons.lesson_11_chameleon.model.image_tokenizer import ImageTokenizer, TokenizerConfig
from lessons.lesson_11_chameleon.model.toy_chameleon import (
    SETTINGS,
    WEIGHTS,
    ToyChameleon,
    load_image_tokenizer,
    toy_config,
)
from shared.course.context import RunContext
from shared.errors import CourseError
from shared.testing import redraw_weights
from shared.training import NotFinite

SIZES = {"width": 16, "depth": 1, "mlp_dim": 32}
SMALL = {"steps": 2, "documents": 12, "batch_size": 4, "sizes": SIZES}


@pytest.fixture(scope="module")
def model():
    image_tokenizer = ImageTokenizer(TokenizerConfig(codebook_size=32, width=16))
    built = ToyChameleon.build(load_language_model()[1], image_tokenizer, BlockDesign(), **SIZES)
    built.decoder.eval()
    return built


@pytest.fixture
def shipped(monkeypatch, model):
    for module in (train, stability):
        monkeypatch.setattr(module, "load_image_tokenizer", lambda: model.image_tokenizer)
    monkeypatch.setattr(train, "load_chameleon", lambda: model)


def context(folder):
    return RunContext(seed=0, data="toybox", device="cpu", folder=folder)


# ── Documents ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("task", data.TASKS)
def test_a_document_holds_its_image_and_predicts_what_its_task_names(model, task):
    scenes = sample_scenes("train", 3, 4, data.OBJECTS)
    images = data.encode_scenes(model, scenes)
    token_ids, mask = data.document(model, task, scenes, 1, images[1], 3)
    spans = split_spans(token_ids, model.vocabulary)
    (codes,) = (span.values for span in spans if span.kind == "image")
    assert torch.equal(codes + model.vocabulary.code_token_ids[0], images[1, 1:-1])
    text = model.tokenizer.decode(token_ids[token_ids < model.tokenizer.vocab_size].tolist(), skip_special_tokens=True)
    predicted = token_ids[mask]
    if task == "draw":
        assert torch.equal(predicted, images[1]) and text == f"{data.full_caption(scenes[1])}\n"
    elif task == "caption":
        assert model.tokenizer.decode(predicted.tolist()) == text == f"{data.full_caption(scenes[1])}\n"
    else:
        answers = model.tokenizer.decode(predicted.tolist()).split("\n")[:-1]
        lines = text.split("\n")[:-1]
        assert 1 <= len(lines) <= data.QUESTIONS
        assert [line.rpartition("?")[2] for line in lines] == answers


def test_an_unknown_task_is_named(model):
    with pytest.raises(ValueError, match="no task 'paint'"):
        data.document(model, "paint", [], 0, torch.zeros(0, dtype=torch.long), 0)


def test_training_documents_hold_no_held_out_combination_and_are_padded(model):
    documents = data.training_documents(model, 0, 60, train.JOINT)
    assert len(documents.token_ids) == 60
    for token_ids, segments, mask in zip(*documents, strict=True):
        own = token_ids[segments >= 0]
        text = model.tokenizer.decode(own[own < model.tokenizer.vocab_size].tolist())
        assert not any(mentions_held_out(line) for line in text.split("\n"))
        assert not mask[segments < 0].any() and mask.any()
    draws = int((documents.loss_mask.sum(dim=1) == model.vocabulary.image_tokens + 2).sum())
    assert draws == 30


def test_test_scenes_are_unseen_combinations_and_questions_have_all_types():
    questions = data.held_out_questions("test", 1000, 36)
    pairs = {(scene.objects[0].color, scene.objects[0].shape) for scene in questions.scenes}
    assert pairs <= HELD_OUT
    assert {questions.types.count(name) for name in data.SETTING.question_types} == {6}
    assert 0.2 < data.chance() < 0.35


# ── The model ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_drawings_are_images_and_follow_the_generator(model):
    captions = ["a small plain red star at the top", "a large dotted blue cross on the left"]
    images = [model.draw(captions, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert images[0].shape == (2, 3, 32, 32) and images[0].min() >= 0 and images[0].max() <= 1
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


def test_a_model_is_saved_in_bfloat16_and_loaded(model, tmp_path):
    redraw_weights(model.decoder)
    model.save(tmp_path)
    loaded = ToyChameleon.load(tmp_path)
    token_ids = torch.randint(model.vocabulary.vocab_size, (2, 9))
    rounded = {name: p.to(torch.bfloat16).float() for name, p in model.decoder.named_parameters()}
    expected = torch.func.functional_call(model.decoder, rounded, (token_ids,))
    assert torch.equal(loaded.decoder(token_ids), expected)
    assert loaded.vocabulary == model.vocabulary and loaded.design == model.design
    text = (tmp_path / SETTINGS).read_text().replace('"depth": 1', '"depth": 2')
    (tmp_path / SETTINGS).write_text(text)
    with pytest.raises(CourseError, match=WEIGHTS):
        ToyChameleon.load(tmp_path)


def test_the_shipped_image_tokenizer_reconstructs_images():
    tokenizer = load_image_tokenizer()
    scenes = sample_scenes("test", 77, 40, (1, 5))
    images = data.scene_images(scenes, 32)
    error = (tokenizer.decode(tokenizer.encode(images)) - images).square().mean()
    mean_color = images.mean(dim=(0, 2, 3), keepdim=True)
    assert error < 0.1 * (images - mean_color).square().mean()
    assert tokenizer.codebook_size == 512 and tokenizer.config.side == 8


# ── Measurements ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_answers_and_captions_are_scored_exactly(model, monkeypatch):
    questions = data.held_out_questions("validation", 5, 12)
    scenes = sample_scenes("validation", 5, 12, data.OBJECTS)

    def write(_, images, texts=None):
        if texts is None:
            return [data.full_caption(scene) for scene in scenes[:6]] + ["a red star"] * 6
        return [answer if place < 6 else "no answer" for place, answer in enumerate(questions.answers)]

    monkeypatch.setattr(ToyChameleon, "write", write)
    scores = evaluate.measure_texts(model, "validation", 5, 12)
    assert scores["answers"] == pytest.approx(0.5) and scores["answers_color"] == pytest.approx(0.5)
    assert scores["captions"] == pytest.approx(0.5) and scores["captions_true"] >= 0.5


def test_reconstructions_of_renders_are_the_ceiling(model, monkeypatch):
    monkeypatch.setattr(evaluate, "draw_scenes", lambda _, scenes, *__: data.scene_images(scenes, 32))
    drawings = evaluate.measure_drawings(model, "test", 5, 20)
    assert drawings.scores["draw_color"] == drawings.scores["real_color"] >= 0.9
    assert drawings.scores["distance"] == pytest.approx(drawings.scores["real_distance"])
    assert drawings.scores["ceiling_object"] < 0.5  # an untrained image tokenizer


def test_losses_are_per_predicted_token(model):
    losses = evaluate.measure_losses(model, "validation", 5, 8)
    documents = data.held_out_documents(model, "draw", "validation", 5, 8)
    log_probabilities = model.decoder(documents.token_ids)[:, :-1].log_softmax(dim=-1)
    picked = log_probabilities.gather(-1, documents.token_ids[:, 1:, None])[..., 0]
    expected = -picked[documents.loss_mask[:, 1:]].mean()
    assert losses["draw_loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert losses.keys() == {f"{task}_loss" for task in data.TASKS}


# ── Arms ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_mixture_decides_the_tasks_of_a_decoder(shipped, tmp_path):
    measured = train.train_tasks(context(tmp_path), held_out=4, mixture={"draw": 1.0}, **SMALL)
    assert measured["parameters"] > 0 and math.isfinite(measured["draw_loss"] + measured["validation_answer_loss"])


def test_the_shipped_model_is_measured_on_both_splits(shipped, tmp_path):
    measured = train.measure_shipped(context(tmp_path), held_out=12)
    assert {"draw_color", "ceiling_color", "answers", "validation_captions", "distance"} <= measured.keys()


def test_the_sweep_reports_each_run_and_marks_divergence(shipped, tmp_path, monkeypatch):
    small = {"steps": 2, "documents": 12, "sizes": SIZES, "batch_size": 4}
    measured = stability.sweep(context(tmp_path), rates=(1e-3,), designs=("plain", "QK-norm"), **small)
    assert measured["plain_logit"] == measured["plain_0.001_logit"] > 0
    # Two steps do not get below the entropy of the token frequencies.
    assert measured["plain_diverged"] == 1.0 and measured["plain_0.001_loss"] > measured["frequency_loss"]

    def fail(*_, **__):
        raise NotFinite("the loss is NaN")

    monkeypatch.setattr(stability, "train", fail)
    failed = stability.sweep(context(tmp_path), rates=(1e-3,), designs=("QK-norm",), **small)
    assert failed["QK-norm_diverged"] == 1.0 and "QK-norm_0.001_loss" not in failed


def test_the_entropy_of_frequencies_counts_predicted_tokens_only():
    token_ids = torch.tensor([[9, 1, 1, 2, 2]])
    mask = torch.tensor([[False, True, True, True, True]])
    documents = data.Documents(token_ids, torch.zeros_like(token_ids), mask)
    assert stability.frequency_loss(documents) == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_image_tokenizer_trains(name, tmp_path):
    changes = TOKENIZERS[name] | {"config": {**TOKENIZERS[name]["config"], "width": 16}}
    measured = codebooks.compare_tokenizer(context(tmp_path), steps=2, scenes=8, batch_size=4, held_out=4, **changes)
    assert measured["codes_per_image"] == (16 if name == "4 × 4" else 64)
    assert math.isfinite(measured["psnr"]) and 0 < measured["use"] <= 1


def test_the_mechanism_is_exact(tmp_path):
    assert max(exact.check_mechanism(context(tmp_path)).values()) < 1e-12


def test_a_checkpoint_holds_both_models_and_what_they_measure(tmp_path):
    folder, run = tmp_path / "out", tmp_path / "run"
    folder.mkdir()
    tokenizer = tokenizer_training.TokenizerRecipe(TokenizerConfig(codebook_size=16, width=16), 2, 4, scenes=8)
    measured = checkpoint.build_checkpoint(folder, run, tokenizer, train.Recipe(**SMALL), held_out=12)
    assert ToyChameleon.load(folder).decoder.config.width == SIZES["width"]
    assert {"unseen combinations, draw_color", "seen combinations, reconstructions, psnr"} <= measured.keys()
    assert not run.exists()


def test_separate_models_have_half_of_the_documents_and_the_same_size():
    by_name = {arm.name: arm.presets["full"] for arm in ARMS if arm.name in TASKS}
    assert by_name["drawing alone"]["steps"] == by_name["reading alone"]["steps"] == DECODER["full"]["steps"] // 2
    joint = by_name["joint"]["mixture"]
    assert joint == train.JOINT and sum(joint.values()) == pytest.approx(1)
    reading = by_name["reading alone"]["mixture"]
    assert reading["caption"] / reading["answer"] == pytest.approx(joint["caption"] / joint["answer"])


def test_sizes_of_the_decoder_are_values_of_its_config():
    assert toy_config(1040) == dataclasses.replace(toy_config(1040, width=16), width=128)
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
