"""The arms on the toy world: training data without held-out combinations or duplicate captions, and sound scores."""

import pytest
import torch

from data.toybox.heldout import is_held_out, mentions_held_out, sample_scenes
from lessons.lesson_02_clip.experiment import checkpoint
from lessons.lesson_02_clip.experiment.data import (
    CLASSES,
    LEVELS,
    CaptionedScenes,
    class_prompt,
    evaluation_set,
    generate_captions,
    tokenize,
    toy_tokenizer,
)
from lessons.lesson_02_clip.experiment.evaluate import (
    encode_classes,
    encode_scenes,
    measure_baselines,
    retrieval,
    zero_shot_accuracy,
)
from lessons.lesson_02_clip.experiment.train import contrastive_loss, small_clip, train_clip
from lessons.lesson_02_clip.model import CLIP, info_nce
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer
from shared.course.context import RunContext
from shared.training import TrainingConfig, train

SMALL = {"patch_size": 8, "width": 32, "depth": 1}


@pytest.fixture(scope="module")
def batches():
    return CaptionedScenes.from_scenes(sample_scenes("train", 0, 400, (1, 1)), batch_size=32, seed=3)


@pytest.fixture
def context(tmp_path):
    return RunContext(seed=0, data="toybox", device="cpu", folder=tmp_path / "arm")


@pytest.mark.parametrize("objects", [(1, 1), (1, 4)])
def test_training_has_no_held_out_combination_in_images_or_captions(objects):
    scenes = sample_scenes("train", 5, 300, objects)
    assert not any(map(is_held_out, scenes))
    assert not any(mentions_held_out(text) for level in LEVELS for text in generate_captions(scenes, level))
    # The vocabulary has no token for it either: tokens end at the ends of words.
    assert not any(mentions_held_out(token.replace("</w>", " ")) for token in toy_tokenizer().vocab)


def test_every_word_of_the_toy_world_is_one_token():
    text = "a small striped purple triangle at the top left, two large dotted crosses and an orange moon in the middle"
    assert len(toy_tokenizer().encode(text)) == len(text.replace(",", " ,").split())


def test_captions_of_a_batch_are_distinct_and_match_their_images(batches):
    for step in range(5):
        images, token_ids = batches(step)
        assert images.shape == (32, 3, 32, 32) and len(token_ids.unique(dim=0)) == 32
    # Every image's caption is among those of its scene.
    scenes = [
        int(row)
        for image in images
        for row in ((batches.pixels.float() / 64 - 3.25 - image).abs().amax((1, 2, 3)) == 0).nonzero()[:1]
    ]
    for scene, row in zip(scenes, token_ids, strict=True):
        captions = batches.token_ids[batches.caption_index[scene]][:, : len(row)]
        assert (captions == row).all(dim=1).any()


def test_a_batch_is_a_function_of_its_step(batches):
    again = CaptionedScenes.from_scenes(sample_scenes("train", 0, 400, (1, 1)), batch_size=32, seed=3)
    for step in (4, 0, 4):
        assert all(torch.equal(a, b) for a, b in zip(batches(step), again(step), strict=True))
    assert not torch.equal(batches(0)[0], batches(1)[0])


@pytest.mark.parametrize(("detail_fraction", "levels"), [(0.0, [0]), (0.5, [0, 1]), (1.0, [1])])
def test_fewer_captions_than_a_batch_make_smaller_batches(detail_fraction, levels):
    scenes = sample_scenes("train", 0, 6, (1, 1))
    few = CaptionedScenes.from_scenes(scenes, batch_size=32, seed=3, detail_fraction=detail_fraction)
    assert len(few(0)[0]) == len(few.caption_index[:, levels].unique()) < 32


def test_captions_are_of_both_levels(batches):
    token_ids = torch.cat([batches(step)[1][:, :8] for step in range(6)])
    texts = [toy_tokenizer().decode(row.tolist()) for row in token_ids]
    detailed = sum("small" in text or "large" in text for text in texts) / len(texts)
    assert 0.35 < detailed < 0.75  # duplicates of short captions are left out, so detailed ones are more frequent


def test_groups_are_contrasted_separately(batches):
    model, batch = small_clip(**SMALL), batches(0)
    with torch.no_grad():
        images, texts = model.encode_images(batch[0]), model.encode_texts(batch[1])
        loss, _ = contrastive_loss(model, batch, 32)
        torch.testing.assert_close(loss, info_nce(images, texts, model.logit_scale))
        grouped, metrics = contrastive_loss(model, batch, 8)
        groups = [info_nce(images[at : at + 8], texts[at : at + 8], model.logit_scale) for at in range(0, 32, 8)]
    torch.testing.assert_close(grouped, sum(groups) / 4)
    assert metrics["scale"].item() == pytest.approx(1 / 0.07, rel=1e-4)


def test_scores_of_a_perfect_and_of_a_constant_model():
    scenes = evaluation_set("test", count=64)
    corners = torch.eye(len(CLASSES))
    vectors = corners[scenes.classes[:, 0]]
    assert zero_shot_accuracy(vectors, corners, scenes) == 1.0
    assert zero_shot_accuracy(vectors.roll(1, 1), corners, scenes) == 0.0
    texts = torch.nn.functional.normalize(torch.randn(len(scenes.token_ids), 80), dim=-1)
    perfect = retrieval(texts[scenes.caption_index], texts, scenes)
    assert perfect["image_to_text"] == perfect["text_to_image"] == 1.0 and perfect["chance"] < 0.05
    constant = retrieval(torch.ones(64, 80) / 80**0.5, texts, scenes)
    assert constant["text_to_image"] == 0.0 and constant["image_to_text"] < 0.1


def test_evaluation_sets_have_the_combinations_of_their_split():
    test = evaluation_set("test", count=64)
    combinations = {" ".join(CLASSES[label]) for label in test.classes[:, 0].tolist()}
    assert len(combinations) <= 8 and all(mentions_held_out(name) for name in combinations)
    validation = evaluation_set("validation", count=64)
    assert not any(mentions_held_out(" ".join(CLASSES[label])) for label in validation.classes[:, 0].tolist())
    several = evaluation_set("test", (2, 3), 64)
    assert ((several.classes >= 0).sum(dim=1) >= 2).all()


@pytest.mark.parametrize("loss", ["info-nce", "sigmoid"])
def test_a_short_training_learns_colors_of_held_out_combinations(loss, batches):
    """Chance is 12.5 %; shapes take longer."""
    torch.manual_seed(0)
    model = small_clip(loss, **SMALL)
    config = TrainingConfig(steps=140, learning_rate=5e-3, optimizer="muon", warmup_steps=14, betas=(0.9, 0.98))
    train(model, batches, lambda model, batch: contrastive_loss(model, batch, 32), config)
    scenes = evaluation_set("test", count=128)
    predictions = (encode_scenes(model, scenes) @ encode_classes(model).T).argmax(dim=1)
    assert (predictions // 8 == scenes.classes[:, 0] // 8).float().mean() > 0.4


def test_the_arm_measures_what_the_claims_read(context):
    measured = train_clip(context, steps=2, scenes=100, temperature=0.5, architecture=SMALL)
    assert measured["temperature"] == pytest.approx(0.5)
    for name in ("zero_shot", "zero_shot_seen", "zero_shot_several", "ensemble", "image_to_text", "text_to_image"):
        assert 0.0 <= measured[name] <= 1.0
    assert 0.0 < measured["gap"] < 2.0 and measured["gap_before"] > 0.0
    assert 2 / 64 <= measured["zero_shot_several_chance"] <= 3 / 64
    baselines = measure_baselines(context, scenes=200, epochs=1)
    assert baselines["chance"] == 1 / 64 and 0.0 <= baselines["zero_shot"] < 0.5


def test_a_checkpoint_is_a_published_folder_with_its_tokenizer(tmp_path):
    recipe = {"steps": 2, "scenes": 60, "objects": (1, 2)}
    measured = checkpoint.train_and_save(tmp_path, architecture=SMALL, recipe=recipe)
    files = {"config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer_config.json"}
    assert {path.name for path in tmp_path.iterdir()} == files
    assert 0.0 <= measured["zero_shot"] <= 1.0 and not any(name.endswith("_curve") for name in measured)
    model, tokenizer = CLIP.from_pretrained(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)
    token_ids = tokenizer(["a purple triangle"])
    assert torch.equal(token_ids, toy_tokenizer()(["a purple triangle"]))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 32), token_ids).shape == (1, 1)


def test_prompts_are_captions_of_the_grammar():
    assert class_prompt("purple", "triangle") == "a purple triangle"
    assert class_prompt("orange", "star") == "an orange star"
    assert tokenize(["a red moon"]).shape == (1, 5)
