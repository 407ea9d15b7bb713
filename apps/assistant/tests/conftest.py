"""Two tiny models to join, and an assistant made of them that says something different to everything."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from apps.assistant.assistant import Assistant
from apps.assistant.config import ModelChoice
from apps.assistant.files import Habits, toy_preprocessing, write_preprocessing
from apps.assistant.join import join
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_02_clip.model import CLIP, CLIPConfig, TextEncoderConfig, clip_vision_config
from shared.course.checkpoint import CHECKPOINTS_FOLDER
from shared.tokenizers import load_tokenizer, save_tokenizer
from shared.transformer import DecoderConfig


@pytest.fixture(scope="session")
def noise():
    """A picture of a width and a height, every byte at random and the same in every run."""

    def make(width, height):
        dice = np.random.default_rng([width, height])
        return Image.fromarray(dice.integers(256, size=(height, width, 3), dtype=np.uint8))

    return make


@pytest.fixture(scope="session")
def towers(tmp_path_factory):
    """The folders of a CLIP and of a language model, as they might have been downloaded."""
    eye, words = (tmp_path_factory.mktemp(name) for name in ("eye", "words"))
    torch.manual_seed(0)
    vision = clip_vision_config(image_size=16, patch_size=8, width=16, depth=2, heads=2, mlp_dim=24)
    text = TextEncoderConfig(vocab_size=20, context_length=8, width=8, depth=1, heads=2, mlp_dim=8, end_token=19)
    CLIP(CLIPConfig(vision, text, embedding=12)).save_pretrained(eye)
    write_preprocessing(eye, toy_preprocessing(16))
    tokenizer = load_tokenizer(CHECKPOINTS_FOLDER / "lesson_00_decoder" / "tokenizer.json")
    sizes = DecoderConfig(
        tokenizer.vocab_size, width=16, depth=2, heads=4, kv_heads=2, mlp_dim=24, rotary_base=100.0, qkv_bias=True
    )
    LanguageModel(sizes).save_pretrained(words)
    save_tokenizer(tokenizer, words / "tokenizer.json")
    return eye, words


@pytest.fixture(scope="session")
def make_assistant(towers):
    """An assistant with weights drawn at random, large enough that what it says depends on all that it reads."""

    def make(connector="patches", **choices):
        choice = ModelChoice(str(towers[0]), str(towers[1]), connector, context=120, **choices)
        joined = join(choice)
        torch.manual_seed(1)
        for parameter in joined.model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.35)
        nn.init.normal_(joined.model.language_model.embedding.weight)
        return Assistant(joined.model, joined.tokenizer, joined.preprocessing, Habits(120, "what is it?"), name="tiny")

    return make


@pytest.fixture(scope="session")
def assistant(make_assistant):
    return make_assistant()
