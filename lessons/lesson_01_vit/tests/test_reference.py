"""The pure-Python Vision Transformer: its counts, its mathematics, its learning."""

import json
import math
from random import Random

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from lessons.lesson_01_vit import reference
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_01_vit.reference import DIGITS, PUBLISHED, Geometry
from shared.stdlib import digits
from shared.stdlib.creation import normal, tensor
from shared.stdlib.functional import softmax
from shared.stdlib.tensor import Tensor
from shared.testing import has_curve, quick_run

# Odd on purpose: three channels, patches of 3, five heads, a grid of 2.
ODD = Geometry("odd", 6, 3, width=20, depth=2, heads=5, mlp_dim=28, channels=3, classes=7)


# ── Geometry ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def oracle(geometry: Geometry) -> torch.nn.Module:
    """Return the published model of that geometry in `transformers`, on the meta device."""
    sizes = {
        "image_size": geometry.image_size,
        "patch_size": geometry.patch_size,
        "hidden_size": geometry.width,
        "num_hidden_layers": geometry.depth,
        "num_attention_heads": geometry.heads,
        "intermediate_size": geometry.mlp_dim,
    }
    with torch.device("meta"):
        if geometry.pre_norm:
            return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**sizes))
        if geometry.attention_pooling:
            return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes))
        if geometry.layer_scale:
            # Its mlp_dim follows from mlp_ratio: 2/3 of four times the width, rounded up to a multiple of 8.
            sizes.pop("intermediate_size")
            return transformers.Dinov2Model(transformers.Dinov2Config(**sizes, use_swiglu_ffn=geometry.swiglu))
        config = transformers.ViTConfig(**sizes, num_labels=geometry.classes)
        return transformers.ViTForImageClassification(config)


@pytest.mark.parametrize("geometry", PUBLISHED, ids=lambda geometry: geometry.name)
def test_parameter_counts_equal_the_published_models(geometry):
    published = {
        "ViT-B/16": 86_567_656,
        "CLIP L/14@336": 303_507_456,
        "DINOv2 g/14": 1_136_480_768,
        "SigLIP SO/14": 428_225_600,
    }
    model = oracle(geometry)
    assert sum(geometry.parameters().values()) == published[geometry.name]
    assert sum(parameter.numel() for parameter in model.parameters()) == published[geometry.name]


@pytest.mark.parametrize("geometry", [DIGITS, ODD], ids=lambda geometry: geometry.name)
def test_parameter_counts_equal_the_model(geometry):
    built = reference.VisionTransformer(geometry, Random(0)).parameters()
    assert sum(geometry.parameters().values()) == sum(len(parameter.data) for parameter in built.values())
    blocks = sum(len(p.data) for name, p in built.items() if name.startswith("blocks.") and ".mlp." in name)
    assert geometry.parameters()["MLP"] == blocks


@pytest.mark.parametrize(
    "geometry",
    [
        ODD,
        Geometry("one more norm", 12, 4, 16, 2, 2, 24, patch_bias=False, pre_norm=True),
        Geometry("gated", 12, 4, 24, 2, 2, 64, mask_token=True, layer_scale=True, swiglu=True),
        Geometry("pooled", 10, 4, 16, 2, 2, 24, class_token=False, attention_pooling=True),
    ],
    ids=lambda geometry: geometry.name,
)
def test_flops_equal_those_that_pytorch_counts(geometry):
    model = oracle_for_counting(geometry)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        model(torch.zeros(1, 3, geometry.image_size, geometry.image_size))
    assert geometry.flops() == counter.get_total_flops()


def oracle_for_counting(geometry: Geometry) -> torch.nn.Module:
    model = oracle(geometry)
    model.set_attn_implementation("eager")
    return model.eval()


def test_tokens_follow_from_the_grid():
    assert [(geometry.grid, geometry.tokens) for geometry in PUBLISHED] == [(14, 197), (24, 577), (37, 1370), (27, 729)]
    table = reference.geometry_table((*PUBLISHED, DIGITS))
    assert "1,136,480,768" in table and "27×27" in table and max(map(len, table.splitlines())) <= 100


# ── Equality with the PyTorch version ─────────────────────────────────────────────────────────────────────────────────


def pair(geometry: Geometry, seed: int = 3) -> tuple[reference.VisionTransformer, VisionTransformer]:
    """Return both versions with the same random weights; zeros and ones would hide errors."""
    plain, random = reference.VisionTransformer(geometry, Random(seed)), Random(seed + 1)
    for parameter in plain.parameters().values():
        parameter.data = normal(parameter.shape, 0.4, random).data
    config = VisionTransformerConfig(
        image_size=geometry.image_size,
        patch_size=geometry.patch_size,
        channels=geometry.channels,
        width=geometry.width,
        depth=geometry.depth,
        heads=geometry.heads,
        mlp_dim=geometry.mlp_dim,
        classes=geometry.classes,
    )
    model = VisionTransformer(config).double()
    weights = {
        name: torch.tensor(parameter.data, dtype=torch.float64).reshape(parameter.shape)
        for name, parameter in plain.parameters().items()
    }
    model.load_state_dict(weights)
    return plain, model


def logits_of(model: reference.VisionTransformer, images: Tensor) -> list[float]:
    logits, _ = model(images)
    return logits.data


def images_of(geometry: Geometry, batch: int = 3) -> Tensor:
    return normal((batch, geometry.channels, geometry.image_size, geometry.image_size), 1.0, Random(9))


def without_scale(query, key, value):
    weights = softmax(query @ key.transpose())
    return weights @ value, weights


def over_queries(query, key, value):
    scale = 1.0 / math.sqrt(query.shape[-1])
    weights = softmax(query @ key.transpose() * scale, axis=-2)
    return weights @ value, weights


def keys_and_queries_swapped(query, key, value):
    scale = 1.0 / math.sqrt(query.shape[-1])
    weights = softmax(key @ query.transpose() * scale)
    return weights @ value, weights


@pytest.mark.parametrize("broken", [without_scale, over_queries, keys_and_queries_swapped])
def test_a_broken_attention_is_detected(broken, monkeypatch):
    plain, model = pair(ODD)
    images = images_of(ODD)
    expected = model(torch.tensor(images.tolist(), dtype=torch.float64)).flatten().tolist()
    assert logits_of(plain, images) == pytest.approx(expected, abs=1e-9)
    monkeypatch.setattr(reference, "scaled_dot_product_attention", broken)
    assert max(abs(a - b) for a, b in zip(logits_of(plain, images), expected, strict=True)) > 1e-3


def test_positions_make_the_order_of_patches_matter():
    plain, _ = pair(ODD)
    images = images_of(ODD, batch=1)
    # Left and right half exchanged: the same patches in another order.
    swapped = tensor([[[row[3:] + row[:3] for row in channel] for channel in image] for image in images.tolist()])
    assert max(abs(a - b) for a, b in zip(logits_of(plain, images), logits_of(plain, swapped), strict=True)) > 1e-3
    plain.positions.data = [0.0] * len(plain.positions.data)
    assert logits_of(plain, images) == pytest.approx(logits_of(plain, swapped), abs=1e-9)


@pytest.mark.parametrize("height,width", [(7, 8), (8, 7)])
def test_an_image_that_does_not_divide_is_refused(height, width):
    with pytest.raises(ValueError, match=f"image {height}×{width} does not divide into patches of 4"):
        reference.patchify(Tensor([0.0] * height * width, (1, 1, height, width)), 4)


# ── Learning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_run_returns_what_it_prints_and_is_deterministic(capsys):
    first, again, other = (reference.run(steps=2, seed=seed) for seed in (1, 1, 2))
    output = capsys.readouterr().out
    assert f"{first['accuracy']:6.1%}" in output and f"{first['baseline_accuracy']:6.1%}" in output
    assert first["parameters"] == sum(DIGITS.parameters().values()) and len(first["losses"]) == 2
    for key in ("accuracy", "baseline_accuracy", "losses"):
        assert first[key] == again[key]
    assert first["losses"] != other["losses"] and first["baseline_accuracy"] != other["baseline_accuracy"]
    json.dumps(first)


def test_the_attention_map_has_the_digit_and_four_patches():
    model, image = reference.VisionTransformer(DIGITS, Random(0)), digits.load().images[0]
    lines = reference.attention_map(model, image).splitlines()
    assert len(lines) == 8 and {len(line) for line in lines} == {2 + 16 + 3 + 16}
    attention = [line[21:] for line in lines]
    assert (
        len(set(attention[:4])) == len(set(attention[4:])) == 1
        and len(set(attention[0][:8])) == len(set(attention[0][8:])) == 1
    )


def test_quick_run_learns_with_nothing_installed():
    """Without site-packages. After so few steps, the accuracy is below the baseline; chance is 10 %."""
    finished = quick_run("lessons.lesson_01_vit.reference")
    scores = {
        line.split("  ")[1].strip(): float(line.split("%")[0].split()[-1])
        for line in finished.stdout.splitlines()
        if line.startswith("  ") and "%" in line and ("nearest" in line or "Transformer" in line)
    }
    assert scores["Vision Transformer"] > 60.0
    assert 80.0 < scores["nearest class mean"] < 95.0
    assert "86,567,656" in finished.stdout and has_curve(finished.stdout)
    assert len(finished.stderr.splitlines()) == 5
