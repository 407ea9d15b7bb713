"""Two tiny models, and an assistant built from them whose answers depend on all of its input."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from apps.assistant.assistant import Assistant
from apps.assistant.build import build_model
from apps.assistant.config import ModelConfig
from apps.assistant.model_folder import GenerationSettings, toy_preprocessing, write_preprocessing
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.language_model import read_config as language_config
from lessons.lesson_02_clip.model import CLIP, CLIPConfig, TextEncoderConfig, clip_vision_config
from shared.course.checkpoint import CHECKPOINTS_FOLDER
from shared.tokenizers import load_tokenizer, save_tokenizer
from shared.transformer import DecoderConfig


@pytest.fixture(scope="session")
def noise():
    """Return a function that makes an image of random bytes, equal in every run."""

    def make(width, height):
        rng = np.random.default_rng([width, height])
        return Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8))

    return make


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory):
    """The folders of a CLIP and of a language model, as if downloaded."""
    clip_folder, language_folder = (tmp_path_factory.mktemp(name) for name in ("clip", "language"))
    torch.manual_seed(0)
    vision = clip_vision_config(image_size=16, patch_size=8, width=16, depth=2, heads=2, mlp_dim=24)
    text = TextEncoderConfig(vocab_size=20, context_length=8, width=8, depth=1, heads=2, mlp_dim=8, end_token=19)
    CLIP(CLIPConfig(vision, text, embedding=12)).save_pretrained(clip_folder)
    write_preprocessing(clip_folder, toy_preprocessing(16))
    tokenizer = load_tokenizer(CHECKPOINTS_FOLDER / "lesson_00_decoder" / "tokenizer.json")
    sizes = DecoderConfig(
        tokenizer.vocab_size, width=16, depth=2, heads=4, kv_heads=2, mlp_dim=24, rotary_base=100.0, qkv_bias=True
    )
    LanguageModel(sizes).save_pretrained(language_folder)
    save_tokenizer(tokenizer, language_folder / "tokenizer.json")
    return clip_folder, language_folder


@pytest.fixture(scope="session")
def tied_language_folder(model_folders, tmp_path_factory):
    """The folder of a Qwen2 whose output layer shares the weights of its embedding, as Qwen2.5-0.5B's does."""
    folder = tmp_path_factory.mktemp("tied-language")
    torch.manual_seed(3)
    LanguageModel(replace(language_config(model_folders[1]), tied=True)).save_pretrained(folder)
    shutil.copy(model_folders[1] / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="session")
def make_assistant(model_folders):
    """Return a function that makes an assistant with random weights, large enough that answers depend on all input."""

    def make(connector="patches", **settings):
        config = ModelConfig(str(model_folders[0]), str(model_folders[1]), connector, context=120, **settings)
        parts = build_model(config)
        torch.manual_seed(1)
        for parameter in parts.model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.35)
        nn.init.normal_(parts.model.language_model.embedding.weight)
        return Assistant(
            parts.model, parts.tokenizer, parts.preprocessing, GenerationSettings(120, "what is it?"), name="tiny"
        )

    return make


@pytest.fixture(scope="session")
def assistant(make_assistant):
    return make_assistant()
