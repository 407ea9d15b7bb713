"""From a photograph to a probability as in the published classes: identical bytes, equal probabilities."""

import json

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, SiglipImageProcessorPil
from transformers import CLIPTokenizer as PublishedTokenizer

from lessons.lesson_02_clip.classify import classify_photo, main
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from lessons.lesson_02_clip.model.text_cleaning import clean
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer

PHOTO = get_sample_data("grace_hopper.jpg", asfileobj=False)


def photographs():
    """Return a real photograph and crops of it: wide, tall, small, of odd sides, square, and in other modes."""
    with Image.open(PHOTO) as file:
        photo = file.convert("RGB")
    boxes = [(0, 100, 512, 331), (37, 0, 250, 600), (100, 100, 199, 163), (0, 0, 511, 449), (10, 10, 234, 234)]
    crops = [photo.crop(box) for box in boxes]
    return [photo, *crops, photo.convert("L"), photo.convert("RGBA"), photo.convert("P"), photo.resize((2000, 30))]


@pytest.mark.parametrize("size", [224, 77])
def test_bytes_are_identical_to_the_published_processors(size):
    preprocessing = ImagePreprocessing(size=size)
    sides = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    published = CLIPImageProcessorPil(**sides, do_rescale=False, do_normalize=False)
    for image in photographs():
        actual, expected = preprocessing.square(image), published(image)["pixel_values"][0]
        assert actual.dtype == np.uint8 and actual.shape == (size, size, 3)
        assert np.array_equal(actual, np.asarray(expected).transpose(1, 2, 0)), image.size


def test_values_equal_those_of_the_published_processors(tmp_path):
    images = photographs()
    for published in (CLIPImageProcessorPil(), SiglipImageProcessorPil()):
        published.save_pretrained(tmp_path)
        expected = torch.as_tensor(np.stack(published(images)["pixel_values"]))
        torch.testing.assert_close(ImagePreprocessing.from_pretrained(tmp_path)(images), expected, atol=1e-6, rtol=0)


def test_configs_of_2021_with_numbers_for_sizes(tmp_path):
    config = {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 224,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    assert ImagePreprocessing.from_pretrained(tmp_path) == ImagePreprocessing()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a small published folder: weights, vocabulary, preprocessing."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = CLIPTokenizer.train(["a photo of a cat", "a bad photo of the large dog", "a bowl of soup, itap"], 60)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    text = sizes | {"vocab_size": len(tokenizer.vocab), "eos_token_id": tokenizer.end, "bos_token_id": tokenizer.start}
    model = CLIPModel(
        CLIPConfig(text_config=text, vision_config=sizes | {"image_size": 32, "patch_size": 8}, projection_dim=16)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@torch.no_grad()
def test_probabilities_equal_those_of_the_published_classes(folder):
    names = ["a cat", "the large dog", "a bowl of soup", "Grace Hopper’s  portrait"]
    actual = classify_photo(folder, PHOTO, names, templates=["a photo of {}."])
    texts = PublishedTokenizer.from_pretrained(folder)(
        [clean(f"a photo of {name}.") for name in names], padding="max_length", max_length=77, return_tensors="pt"
    )
    with Image.open(PHOTO) as file:
        pixels = CLIPImageProcessorPil.from_pretrained(folder)(file, return_tensors="pt")["pixel_values"]
    published = CLIPModel.from_pretrained(folder).eval()(input_ids=texts["input_ids"], pixel_values=pixels)
    expected = published.logits_per_image[0].softmax(dim=-1)
    assert max(expected) - min(expected) > 0.01
    assert [actual[name] for name in names] == pytest.approx(expected.tolist(), abs=1e-4)
    assert list(actual.values()) == sorted(actual.values(), reverse=True)


def test_the_command_prints_the_probabilities(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["classify", str(folder), PHOTO, "a cat", "a dog"])
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("%" in line for line in lines) and {line[9:] for line in lines} == {"a cat", "a dog"}
    monkeypatch.setattr("sys.argv", ["classify", str(folder), str(folder / "vocab.json"), "a cat"])
    assert main() == 2
    assert "unreadable image" in capsys.readouterr().err
