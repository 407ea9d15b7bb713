"""What the lesson trains on and how it measures: nothing held out in training, no caption twice, scores that can be trusted."""

import pytest
import torch

from data.toybox.heldout import is_held_out, mentions_held_out, sample_scenes
from lessons.lesson_02_clip.experiment import checkpoint, contrast, measure
from lessons.lesson_02_clip.experiment.baselines import measure_baselines
from lessons.lesson_02_clip.experiment.pairs import (
    CLASSES,
    LEVELS,
    Pairs,
    captions_of,
    prompt,
    tokens_of,
    toy_tokenizer,
)
from lessons.lesson_02_clip.model import CLIP, info_nce
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer
from shared.training import TrainingConfig, train

SMALL = {"patch_size": 8, "width": 32, "depth": 1}


@pytest.fixture(scope="module")
def pairs():
    return Pairs.of(sample_scenes("train", 0, 400, (1, 1)), batch_size=32, seed=3)


@pytest.mark.parametrize("objects", [(1, 1), (1, 4)])
def test_training_never_shows_or_says_what_is_held_out(objects):
    scenes = sample_scenes("train", 5, 300, objects)
    assert not any(map(is_held_out, scenes))
    assert not any(mentions_held_out(text) for level in LEVELS for text in captions_of(scenes, level))
    # Nor does the vocabulary have a token for it: it ends at the ends of words.
    assert not any(mentions_held_out(token.replace("</w>", " ")) for token in toy_tokenizer().vocab)


def test_every_word_of_the_world_is_one_token():
    text = "a small striped purple triangle at the top left, two large dotted crosses and an orange moon in the middle"
    assert len(toy_tokenizer().encode(text)) == len(text.replace(",", " ,").split())


def test_no_caption_comes_twice_in_a_batch_and_each_is_its_pictures_own(pairs):
    for number in range(5):
        images, tokens = pairs(number)
        assert images.shape == (32, 3, 32, 32) and len(tokens.unique(dim=0)) == 32
    # Every picture's caption is among those that belong to its scene.
    chosen = [
        int(row)
        for image in images
        for row in ((pairs.pixels.float() / 64 - 3.25 - image).abs().amax((1, 2, 3)) == 0).nonzero()[:1]
    ]
    for scene, row in zip(chosen, tokens, strict=True):
        own = pairs.tokens[pairs.caption_of[scene]][:, : len(row)]
        assert (own == row).all(dim=1).any()


def test_a_batch_is_a_function_of_its_number(pairs):
    again = Pairs.of(sample_scenes("train", 0, 400, (1, 1)), batch_size=32, seed=3)
    for number in (4, 0, 4):
        assert all(torch.equal(a, b) for a, b in zip(pairs(number), again(number), strict=True))
    assert not torch.equal(pairs(0)[0], pairs(1)[0])


def test_captions_are_of_both_levels(pairs):
    details = torch.cat([pairs(number)[1][:, :8] for number in range(6)])
    texts = [toy_tokenizer().decode(row.tolist()) for row in details]
    small = sum("small" in text or "large" in text for text in texts) / len(texts)
    assert 0.35 < small < 0.75  # duplicates of short captions are left out, so that details are a little more


def test_groups_are_contrasted_apart(pairs):
    model, batch = contrast.small_model("info-nce", **SMALL), pairs(0)
    with torch.no_grad():
        images, texts = model.encode_images(batch[0]), model.encode_texts(batch[1])
        whole, _ = contrast.contrastive_loss(model, batch, 32)
        torch.testing.assert_close(whole, info_nce(images, texts, model.logit_scale))
        apart, metrics = contrast.contrastive_loss(model, batch, 8)
        groups = [info_nce(images[at : at + 8], texts[at : at + 8], model.logit_scale) for at in range(0, 32, 8)]
    torch.testing.assert_close(apart, sum(groups) / 4)
    assert metrics["scale"].item() == pytest.approx(1 / 0.07, rel=1e-4)


def test_a_perfect_and_a_blind_model_get_what_they_deserve():
    asked = measure.exam("test", count=64)
    corners = torch.eye(len(CLASSES))
    own = corners[asked.classes[:, 0]]
    assert measure.named_rightly(own, corners, asked) == 1.0
    assert measure.named_rightly(own.roll(1, 1), corners, asked) == 0.0
    texts = torch.nn.functional.normalize(torch.randn(len(asked.texts), 80), dim=-1)
    perfect = measure.retrieval(texts[asked.own], texts, asked)
    assert perfect["image_to_text"] == perfect["text_to_image"] == 1.0 and perfect["chance"] < 0.05
    blind = measure.retrieval(torch.ones(64, 80) / 80**0.5, texts, asked)
    assert blind["text_to_image"] == 0.0 and blind["image_to_text"] < 0.1


def test_exams_are_of_held_out_combinations_and_say_what_they_show():
    asked = measure.exam("test", count=64)
    held_out = {" ".join(CLASSES[number]) for number in asked.classes[:, 0].tolist()}
    assert len(held_out) <= 8 and all(mentions_held_out(name) for name in held_out)
    seen = measure.exam("validation", count=64)
    assert not any(mentions_held_out(" ".join(CLASSES[number])) for number in seen.classes[:, 0].tolist())
    several = measure.exam("test", (2, 3), 64)
    assert ((several.classes >= 0).sum(dim=1) >= 2).all()


@pytest.mark.parametrize("loss", ["info-nce", "sigmoid"])
def test_a_short_training_learns_to_name_held_out_colours(loss, pairs):
    """Chance is 12.5 %; shapes take longer."""
    torch.manual_seed(0)
    model = contrast.small_model(loss, **SMALL)
    config = TrainingConfig(steps=80, learning_rate=5e-3, optimizer="muon", warmup_steps=8, betas=(0.9, 0.98))
    train(model, pairs, lambda model, batch: contrast.contrastive_loss(model, batch, 32), config)
    asked = measure.exam("test", count=128)
    named = (measure.images_of(model, asked) @ measure.classes_of(model).T).argmax(dim=1)
    assert (named // 8 == asked.classes[:, 0] // 8).float().mean() > 0.4


def test_the_arm_measures_what_the_claims_read(tmp_path):
    measured = contrast.train_pairs(
        seed=0,
        data="toybox",
        device="cpu",
        folder=tmp_path / "arm",
        resume=False,
        steps=2,
        scenes=100,
        temperature=0.5,
        **SMALL,
    )
    assert measured["temperature"] == pytest.approx(0.5)
    for name in ("zero_shot", "zero_shot_seen", "zero_shot_several", "ensemble", "image_to_text", "text_to_image"):
        assert 0.0 <= measured[name] <= 1.0
    assert 0.0 < measured["gap"] < 2.0 and measured["gap_before"] > 0.0
    assert 2 / 64 <= measured["things_share"] <= 3 / 64
    baselines = measure_baselines(
        seed=0, data="toybox", device="cpu", folder=tmp_path, resume=False, scenes=200, epochs=1
    )
    assert baselines["chance"] == 1 / 64 and 0.0 <= baselines["zero_shot"] < 0.5


def test_a_checkpoint_is_a_published_folder_with_its_tokenizer(tmp_path):
    measured = checkpoint.make(tmp_path, steps=2, scenes=60, objects=(1, 2), **SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer_config.json",
    }  # fmt: skip
    assert 0.0 <= measured["zero_shot"] <= 1.0 and not any(name.endswith("_curve") for name in measured)
    model, tokenizer = CLIP.from_pretrained(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)
    tokens = tokenizer(["a purple triangle"])
    assert torch.equal(tokens, toy_tokenizer()(["a purple triangle"]))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 32), tokens).shape == (1, 1)


def test_prompts_are_captions_of_the_grammar():
    assert prompt("purple", "triangle") == "a purple triangle" and prompt("orange", "star") == "an orange star"
    assert tokens_of(["a red moon"]).shape == (1, 5)
