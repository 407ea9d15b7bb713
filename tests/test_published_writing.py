"""What we write, the published class reads with equal outputs, and so do we; anything else is not written."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
import transformers

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import (
    MaskedAutoencoder,
    MaskedAutoencoderConfig,
    VisionTransformer,
    VisionTransformerConfig,
)
from lessons.lesson_02_clip import model as lesson_2
from lessons.lesson_03_blip2.model import OPT, QFormer, QFormerConfig, opt_config
from lessons.lesson_06_any_resolution import model as lesson_6
from lessons.lesson_07_recipes.model.deepseek import DeepSeekV3
from lessons.lesson_07_recipes.model.deepseek_config import DeepSeekConfig
from lessons.lesson_07_recipes.model.gemma import Gemma, gemma2_config, gemma_config
from lessons.lesson_07_recipes.model.mixtral import Mixtral
from lessons.lesson_07_recipes.model.mixtral_config import MixtralConfig
from shared.errors import CourseError
from shared.testing import redraw_weights
from shared.transformer import DecoderConfig, DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling
from tests import published_families as families

SIZES = {"image_size": 12, "patch_size": 3, "width": 12, "depth": 2, "heads": 3, "mlp_dim": 24}


@dataclass(frozen=True)
class Case:
    """One of our models: how it is built, saved and loaded, and its outputs beside those of the published class."""

    build: Callable[[Any], Any]
    config: Any
    outputs: Callable[[Any, Any], Any]
    load: Callable[[Any], Any]
    save: Callable[[Any, Any], None] = lambda model, folder: model.save_pretrained(folder)


def case(model_class: Any, config: Any, outputs: Callable[[Any, Any], Any]) -> Case:
    return Case(model_class, config, outputs, model_class.from_pretrained)


def image_encoder(config: VisionTransformerConfig) -> Case:
    load, save = lesson_2.read_vision_encoder, lesson_2.write_vision_encoder
    return Case(VisionTransformer, config, families.encoder, load, save)


VIT = VisionTransformerConfig(**SIZES)
LLAMA = DecoderConfig(29, 12, 2, 3, 1, 10)
GEMMA = {"vocab_size": 29, "width": 12, "depth": 2, "heads": 3, "kv_heads": 1, "mlp_dim": 10, "head_dim": 8}
LATENT = {"head_dim": 5, "rotary_dim": 4, "value_dim": 3, "latent_dim": 6, "query_latent_dim": 9, "dense_layers": 1}
EXPERTS = {"experts": 12, "experts_per_token": 3, "expert_dim": 7, "groups": 3, "groups_per_token": 2}
TEXT = lesson_2.TextEncoderConfig(29, 9, 12, 2, 3, 10, end_token=17)
SIGLIP_TEXT = replace(TEXT, causal=False, pooling="last", end_token=None)
NAFLEX = lesson_6.siglip2_vision_config(
    **{name: value for name, value in SIZES.items() if name != "image_size"}, grid_size=4
)
CASES = {
    "llama": case(LanguageModel, LLAMA, families.language),
    "qwen2": case(LanguageModel, replace(LLAMA, qkv_bias=True), families.language),
    "gemma": case(Gemma, gemma_config(**GEMMA), families.language),
    "gemma2": case(Gemma, gemma2_config(**GEMMA, window=5, query_scalar=11), families.language),
    "mixtral": case(Mixtral, MixtralConfig(29, 12, 2, 3, 1, 10, experts=5), families.language),
    "deepseek": case(DeepSeekV3, DeepSeekConfig(29, 12, 2, 3, 3, 10, **LATENT, **EXPERTS), families.language),
    "opt": case(OPT, opt_config(29, 12, 2, 3, 10, 24), families.language),
    "vit": case(VisionTransformer, replace(VIT, pooler=True), families.vision),
    "classifier": case(VisionTransformer, replace(VIT, classes=3), families.classifier),
    "deit": case(VisionTransformer, replace(VIT, classes=3, distillation_token=True), families.classifier),
    "dinov2": case(VisionTransformer, replace(VIT, layer_scale=1.0, mask_token=True), families.vision),
    "registers": case(
        VisionTransformer,
        replace(VIT, layer_scale=1.0, mask_token=True, registers=2, antialias=True),
        families.vision,
    ),
    "autoencoder": case(
        MaskedAutoencoder, MaskedAutoencoderConfig(replace(VIT, positions="sine-cosine"), 8, 1, 2), families.autoencoder
    ),
    "clip vision": image_encoder(lesson_2.clip_vision_config(**SIZES)),
    "siglip vision": image_encoder(lesson_2.siglip_vision_config(**SIZES)),
    "clip text": case(lesson_2.TextEncoder, TEXT, families.text),
    "clip": case(
        lesson_2.CLIP, lesson_2.CLIPConfig(lesson_2.clip_vision_config(**SIZES), TEXT, embedding=6), families.pair
    ),
    "siglip": case(
        lesson_2.SigLIP,
        lesson_2.SigLIPConfig(lesson_2.siglip_vision_config(**SIZES), SIGLIP_TEXT),
        families.pair,
    ),
    "siglip2 vision": case(lesson_6.NaViT, NAFLEX, families.naflex),
    "siglip2": case(lesson_6.SigLIP2, lesson_6.SigLIP2Config(NAFLEX, SIGLIP_TEXT), families.naflex_pair),
    "qformer": case(QFormer, QFormerConfig(12, 3, 3, 10, 20), families.qformer),
}
OTHERS = {
    "image_size": [15, 14, (12, 27), (6, 15)],
    "patch_size": [4, 5],
    "channels": [2],
    "width": [24],
    "depth": [3],
    "heads": [6, 4],
    "kv_heads": [3],
    "mlp_dim": [48, 14],
    "vocab_size": [31],
    "head_dim": [6],
    "rotary_base": [50.0],
    "rotary_scaling": [
        Llama3Scaling(4.0, 1.0, 3.0, 6),
        LinearScaling(2.0),
        DynamicScaling(2.0, 2048),
        DynamicScaling(2.0, 6),
        YarnScaling(2.0, 6, 5.0, 2.0, mscale=0.7, mscale_all_dim=1.3, truncate=False),
    ],
    "norm_eps": [0.1],
    "experts": [4, 6],
    "experts_per_token": [1, 6],
    "balance_weight": [0.02],
    "rotary_dim": [2, 3],
    "value_dim": [5],
    "latent_dim": [4],
    "query_latent_dim": [None, 3],
    "dense_layers": [0, 2],
    "shared_experts": [0, 2],
    "expert_dim": [5],
    "groups": [1, 4],
    "groups_per_token": [1, 3],
    "routing_scale": [1.0],
    "norm_offset": [0.0, 1.0, 0.5],
    "query_scalar": [None, 7],
    "attention_softcap": [None, 0.7],
    "output_softcap": [None, 0.7],
    "windows": [(), (3, None), (None, 4), (3, 3), (3, 4)],
    "max_positions": [27],
    "position_offset": [3],
    "context_length": [11],
    "end_token": [2, 5, None],
    "classes": [5],
    "labels": [("a", "b", "c")],
    "registers": [0, 3],
    "grid_size": [3, 6],
    "layer_scale": [None, 0.5],
    "dropout": [0.1],
    "drop_path": [0.1],
    "activation": ["gelu", "quick_gelu", "gelu_pytorch_tanh"],
    "embedding": [7],
    "decoder_width": [16],
    "decoder_depth": [2],
    "decoder_heads": [4],
    "decoder_mlp_dim": [22],
    "mask_ratio": [0.5],
    "context_width": [24],
    "cross_attention_frequency": [1],
    "image": [],
    "text": [],
    "encoder": [],
}


def other_values(config: Any, name: str) -> list[Any]:
    value, hint = getattr(config, name), get_type_hints(type(config))[name]
    if isinstance(value, bool):
        return [not value]
    choices = get_args(hint) if get_origin(hint) is Literal else OTHERS[name]
    return [other for other in choices if other != value]


def changed_configs(config: Any) -> list[tuple[str, Any]]:
    """Return every config that differs in one field, where one part is another config, in one of its fields."""
    changed = []
    for field in fields(config):
        values = other_values(config, field.name)
        if field.name in ("image", "text", "encoder"):
            values = [other for _, other in changed_configs(getattr(config, field.name))]
        for value in values:
            try:
                changed.append((field.name, replace(config, **{field.name: value})))
            except ValueError:  # no config of course_model
                continue
    return changed


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_what_is_written_is_read_with_equal_outputs_or_nothing_is_written(name, tmp_path):
    tested, written = CASES[name], 0
    for number, (field, config) in enumerate([(None, tested.config), *changed_configs(tested.config)]):
        if name == "vit" and field == "pooler":
            continue  # the published class has an argument for that; lesson 1 tests it
        folder = tmp_path / str(number)
        try:
            model = redraw_weights(tested.build(config))
        except ValueError:  # no model of course_model
            continue
        try:
            tested.save(model, folder)
        except CourseError:
            assert field is not None and not folder.exists()
            continue
        try:
            architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
            published_class = getattr(transformers, architecture)
            published, report = published_class.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
            assert not any(report.values()), report
            published.set_experts_implementation("eager")
            for course_model in (model, tested.load(folder)):
                for expected, actual in zip(*tested.outputs(published.eval(), course_model), strict=True):
                    torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)
        except Exception as error:
            raise AssertionError(f"{field}: {config}") from error
        written += 1
    assert written > 5
