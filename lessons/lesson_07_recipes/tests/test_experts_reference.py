"""The reference's sparse decoder and latent attention against the PyTorch ones, and what its run returns."""

import json
from random import Random

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_07_recipes import reference
from lessons.lesson_07_recipes.model.deepseek_config import DeepSeekConfig
from lessons.lesson_07_recipes.model.experts import recorded_routings
from lessons.lesson_07_recipes.model.experts_balance import balance_loss
from lessons.lesson_07_recipes.model.latent_attention import LatentAttention
from lessons.lesson_07_recipes.model.mixtral import Mixtral
from lessons.lesson_07_recipes.model.mixtral_config import MixtralConfig
from shared.attention import Mask
from shared.stdlib.decoder import Decoder
from shared.testing import redraw_weights
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.transformer import Rotary

# ── The same weights ──────────────────────────────────────────────────────────────────────────────────────────────────


def by_reference_names(model, part=lambda parameter: parameter):
    """A Mixtral's weights, or their gradients, by the reference's names: each expert is a module of its own there."""
    values = {}
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            start, leaf = name.rsplit(".", 1)
            values |= {f"{start}.{number}.{leaf}.weight": each for number, each in enumerate(part(parameter))}
        else:
            values[name] = part(parameter)
    return values


def both(vocab_size, width, depth, heads, expert_dim, experts, chosen):
    sizes = vocab_size, width, depth, heads, expert_dim
    config = MixtralConfig(
        *(vocab_size, width, depth, heads, heads, expert_dim),
        rotary_base=10_000.0,
        experts=experts,
        experts_per_token=chosen,
    )
    model = redraw_weights(Mixtral(config)).double()
    plain = reference.sparse_decoder(sizes, experts, chosen, Random(0))
    plain.load_parameters({name: part.flatten().tolist() for name, part in by_reference_names(model).items()})
    return plain, model


@pytest.mark.parametrize("sizes", [(28, 16, 2, 2, 16, 6, 2), (9, 12, 1, 3, 5, 3, 1), (9, 12, 2, 2, 5, 4, 4)])
def test_same_weights_same_logits_losses_and_gradients(sizes):
    plain, model = both(*sizes)
    rows = torch.randint(sizes[0], (2, 7))
    logits = plain(plain.embed(rows.tolist()))
    with recorded_routings(model) as routings:
        expected = model(rows)
    # (The PyTorch decoder rotates queries and keys by angles in float32.)
    assert max_abs_difference(to_torch(logits), expected) < 1e-5
    targets = torch.randint(sizes[0], (14,))
    plain_loss = reference.cross_entropy(logits.reshape(14, sizes[0]), targets.tolist())
    loss = F.cross_entropy(expected.flatten(0, 1), targets)
    for (router_logits, indices), routing in zip(reference.routings(plain), routings, strict=True):
        assert indices == routing.indices.flatten(0, 1).tolist()
        plain_loss = plain_loss + reference.balance_loss(router_logits, indices) * 0.5
        probabilities = routing.logits.softmax(-1).flatten(0, 1)
        loss = loss + 0.5 * balance_loss(probabilities, routing.indices.flatten(0, 1))
    assert plain_loss.item() == pytest.approx(loss.item(), abs=1e-6)
    plain_loss.backward()
    loss.backward()
    gradients = by_reference_names(model, lambda parameter: parameter.grad)
    for name, parameter in plain.parameters().items():
        gradient = parameter.grad or [0.0] * len(parameter.data)  # of an expert that no token chose
        assert max_abs_difference(gradient, gradients[name]) < 1e-5, name


@pytest.mark.parametrize("absorbed", [False, True])
def test_both_forms_of_latent_attention_equal_the_model(absorbed):
    dims = {"head_dim": 5, "rotary_dim": 4, "value_dim": 7, "latent_dim": 6}
    experts = {"experts": 2, "experts_per_token": 1, "groups": 1, "groups_per_token": 1}
    config = DeepSeekConfig(
        9, 12, 1, 3, 3, 8, **dims, query_latent_dim=None, interleaved=False, dense_layers=1, **experts
    )
    model = redraw_weights(LatentAttention(config)).double()
    model.absorbed = absorbed
    plain = reference.LatentAttention(12, 3, tuple(dims.values()), Random(0))
    names = {"query.weight": "query.weight", "down": "down.weight", "latent_norm": "latent_norm.weight"}
    names |= {"up": "up.weight", "output.weight": "output.weight"}
    weights = dict(model.named_parameters())
    plain.load_parameters({name: weights[published].flatten().tolist() for name, published in names.items()})
    x, upstream = torch.randn(2, 6, 12).double().requires_grad_(), torch.randn(2, 6, 12).double()
    plain_x = to_stdlib(x, requires_grad=True)
    output = plain(plain_x, absorbed=absorbed)
    expected = model(x, mask=Mask(causal=True), angles=Rotary(4)(torch.arange(6)[None, :, None]))
    assert max_abs_difference(to_torch(output), expected) < 1e-5
    (output * to_stdlib(upstream)).sum().backward()
    expected.backward(upstream)
    assert max_abs_difference(plain_x.grad, x.grad) < 1e-4
    for name, parameter in plain.parameters().items():
        assert max_abs_difference(parameter.grad, weights[names[name]].grad) < 1e-4, name


# ── Its run ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dense_and_sparse_use_equally_many_parameters_per_letter_but_for_the_router():
    sizes = (28, reference.WIDTH, reference.DEPTH, reference.HEADS)
    dense = Decoder(*sizes, reference.CHOSEN * reference.EXPERT_DIM, Random(0))
    sparse = reference.sparse_decoder((*sizes, reference.EXPERT_DIM), reference.EXPERTS, reference.CHOSEN, Random(0))
    router = reference.DEPTH * reference.EXPERTS * reference.WIDTH
    (dense_active, dense_total), (active, total) = map(reference.active_parameters, (dense, sparse))
    assert dense_active == dense_total == active - router
    assert total > 2 * active - router


def test_the_two_forms_are_equal_and_the_cache_is_smaller():
    difference, cached, cached_latent = reference.largest_difference(seed=3)
    assert difference < 1e-12 and cached_latent < cached / 5


def test_a_run_returns_what_it_prints_and_repeats_itself(capsys, monkeypatch):
    monkeypatch.setattr(reference, "BATCH", 1)
    first, again = (reference.run(steps=2, seed=1) for _ in range(2))
    output = capsys.readouterr().out
    for name in ("dense", "sparse"):
        assert f"{first[name]['bits_per_byte']:.2f}" in output and f"{first[name]['total']:,} in all" in output
        assert first[name] == again[name] and len(first[name]["losses"]) == 2
    assert sum(first["sparse"]["use"]) == pytest.approx(1.0) and first["dense"]["use"] == []
    json.dumps(first)


def test_the_sparse_decoder_learns_one_window_by_heart(monkeypatch):
    monkeypatch.setattr(reference, "BATCH", 1)
    model = reference.sparse_decoder((28, 12, 1, 2, 8), 3, 2, Random(0))
    text = reference.encode_captions("train", 0, 20)[: reference.WINDOW + 1]
    losses = reference.fit(model, [*text, 0], 60, 0, "sparse")
    assert losses[-1] < 0.5 * losses[0]
