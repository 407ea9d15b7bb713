"""LoRA and DoRA: their formulas, what is trained, and merging."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shared.finetuning import (
    AdapterConfig,
    DoRALinear,
    Int8Linear,
    LoRALinear,
    NF4Linear,
    adapter_parameter_names,
    add_adapters,
    disable_adapters,
    find_adapters,
    merge_adapters,
    merge_and_remove_adapters,
    remove_adapters,
    unmerge_adapters,
)
from shared.finetuning.tests.adapted_models import CONFIG, decoder, draw_adapters, tokens
from shared.training import TrainingConfig, train
from shared.transformer import Decoder, DecoderConfig

CLASSES = [LoRALinear, DoRALinear]
BOTH = [AdapterConfig(("*.query", "*.down"), rank=3, alpha=5.0, dora=dora) for dora in (False, True)]


def make_layer(layer_class, base=None, dropout=0.0):
    base = nn.Linear(7, 5) if base is None else base
    layer = layer_class(base, rank=2, scale=1.5, dropout=dropout)
    for name, parameter in layer.named_parameters():
        if not name.startswith("base."):
            nn.init.normal_(parameter) if parameter.ndim == 2 else nn.init.uniform_(parameter, 0.5, 2.0)
    return layer


@pytest.mark.parametrize("layer_class", CLASSES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("store", [lambda linear: linear, NF4Linear, Int8Linear])
def test_an_adapted_layer_starts_as_the_layer_itself(layer_class, bias, store):
    base = store(nn.Linear(64, 48, bias=bias))
    layer, x = layer_class(base, rank=4, scale=2.0), torch.randn(3, 64)
    torch.testing.assert_close(layer(x), base(x), rtol=1e-6, atol=1e-6)


def test_lora_equals_its_formula():
    layer, x = make_layer(LoRALinear), torch.randn(4, 7)
    weight = layer.base.weight + 1.5 * layer.lora_up.weight @ layer.lora_down.weight
    torch.testing.assert_close(layer(x), F.linear(x, weight, layer.base.bias))
    torch.testing.assert_close(layer.merged_weight(), weight)


def test_dora_has_one_magnitude_per_output_and_leaves_the_bias_unchanged():
    layer, x = make_layer(DoRALinear), torch.randn(4, 7)
    direction = layer.base.weight + 1.5 * layer.lora_up.weight @ layer.lora_down.weight
    rows = [layer.magnitude[r] * direction[r] / direction[r].pow(2).sum().sqrt() for r in range(5)]
    torch.testing.assert_close(layer(x), F.linear(x, torch.stack(rows), layer.base.bias))
    torch.testing.assert_close(layer.merged_weight(), torch.stack(rows))
    untrained = DoRALinear(nn.Linear(7, 5), rank=2, scale=1.0)
    torch.testing.assert_close(untrained.magnitude, untrained.base.weight.pow(2).sum(dim=1).sqrt())


def test_doras_gradient_treats_the_norms_as_constants():
    layer, x = make_layer(DoRALinear), torch.randn(4, 7)
    layer(x).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
    layer.zero_grad()
    direction = layer.base.weight + 1.5 * layer.lora_up.weight @ layer.lora_down.weight
    row_scales = layer.magnitude / direction.detach().norm(dim=1)
    F.linear(x, row_scales[:, None] * direction, layer.base.bias).square().sum().backward()
    assert set(gradients) == {"magnitude", "lora_down.weight", "lora_up.weight"}
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, layer.get_parameter(name).grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer_class", CLASSES)
def test_dropout_applies_to_the_update_only(layer_class):
    layer, x = make_layer(layer_class, dropout=0.5), torch.randn(4, 7)
    without_dropout = layer.eval()(x)
    assert not torch.allclose(layer.train()(x), without_dropout)
    nn.init.zeros_(layer.lora_up.weight)
    assert torch.equal(layer.train()(x), layer.eval()(x))


def test_a_model_in_evaluation_mode_stays_in_it():
    model = decoder().eval()
    add_adapters(model, AdapterConfig(("*.query",), dropout=0.9))
    draw_adapters(model)
    assert torch.equal(model(tokens()), model(tokens()))
    assert not any(module.training for module in model.modules())


def test_alpha_is_divided_by_the_rank():
    for rank in (2, 4):
        model = decoder()
        add_adapters(model, AdapterConfig(("*.query",), rank=rank, alpha=6.0))
        assert {adapter.scale for adapter in find_adapters(model).values()} == {6.0 / rank}


@pytest.mark.parametrize("config", BOTH, ids=["lora", "dora"])
def test_only_adapters_are_trained_and_the_base_keeps_its_bits(config):
    model = decoder()
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert add_adapters(model, config) == tuple(
        f"blocks.{n}.{layer}" for n in range(2) for layer in ("attention.query", "mlp.down")
    )
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == set(adapter_parameter_names(model)) and len(trainable) == 4 * (3 if config.dora else 2)

    def loss(model, rows):
        return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())

    rows = torch.randint(CONFIG.vocab_size, (8, 9))
    first = loss(model, rows).item()
    train(model, lambda number: rows, loss, TrainingConfig(30, 1e-2))
    assert loss(model, rows).item() < first - 0.3
    remove_adapters(model)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys() and all(torch.equal(after[name], old) for name, old in before.items())


@pytest.mark.parametrize("config", BOTH, ids=["lora", "dora"])
def test_merging_keeps_the_logits_and_unmerging_restores_every_bit(config):
    model = decoder()
    plain, old = model(tokens()), {name: p.clone() for name, p in model.named_parameters()}
    add_adapters(model, config)
    draw_adapters(model)
    adapted = model(tokens())
    assert (adapted - plain).abs().max() > 0.1
    merge_adapters(model)
    assert not torch.equal(model.blocks[0].attention.query.base.weight, old["blocks.0.attention.query.weight"])
    torch.testing.assert_close(model(tokens()), adapted, rtol=1e-4, atol=1e-4)
    for _ in range(3):
        unmerge_adapters(model)
        merge_adapters(model)
    unmerge_adapters(model)
    assert torch.equal(model(tokens()), adapted)
    with disable_adapters(model):
        assert torch.equal(model(tokens()), plain)
    assert torch.equal(model(tokens()), adapted)
    remove_adapters(model)
    assert all(torch.equal(p, old[name]) for name, p in model.named_parameters())


def test_a_merged_model_has_the_same_tensors_and_can_move():
    model = decoder()
    add_adapters(model, BOTH[1])
    draw_adapters(model)
    names, trainable = list(model.state_dict()), adapter_parameter_names(model)
    merge_adapters(model)
    assert list(model.state_dict()) == names and adapter_parameter_names(model) == trainable
    merged = model(tokens())
    model.double()
    unmerge_adapters(model)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    torch.testing.assert_close(model(tokens()).float(), merged, rtol=1e-3, atol=1e-3)


def test_merge_and_remove_keeps_the_original_names_and_the_adapted_logits():
    model = decoder()
    names = list(model.state_dict())
    add_adapters(model, BOTH[1])
    draw_adapters(model)
    adapted = model(tokens())
    merge_and_remove_adapters(model)
    assert list(model.state_dict()) == names and not find_adapters(model)
    torch.testing.assert_close(model(tokens()), adapted, rtol=1e-4, atol=1e-4)


def test_merging_twice_or_out_of_order_raises():
    model = decoder()
    add_adapters(model, BOTH[0])
    draw_adapters(model)
    with pytest.raises(ValueError, match="not merged"):
        unmerge_adapters(model)
    merge_adapters(model)
    weight = model.blocks[0].attention.query.base.weight.clone()
    with pytest.raises(ValueError, match="merged already"):
        merge_adapters(model)
    assert torch.equal(model.blocks[0].attention.query.base.weight, weight)
    with pytest.raises(ValueError, match="unmerge_adapters first"), disable_adapters(model):
        pass


def test_a_quantized_base_cannot_be_merged_and_then_nothing_is():
    model = decoder()
    model.blocks[1].mlp.down = Int8Linear(model.blocks[1].mlp.down)
    add_adapters(model, BOTH[0])
    with pytest.raises(ValueError, match="Int8Linear"):
        merge_adapters(model)
    assert not any(adapter.merged for adapter in find_adapters(model).values())


def test_an_adapter_keeps_its_dtype_in_a_bfloat16_model():
    base = nn.Linear(16, 16).bfloat16()
    for layer_class in CLASSES:
        layer = layer_class(base, rank=2, scale=1.0)
        nn.init.normal_(layer.lora_up.weight)
        y = layer(torch.randn(3, 16).bfloat16())
        assert y.dtype == torch.bfloat16 and layer.lora_down.weight.dtype == torch.float32
        layer.merge()
        assert layer.base.weight.dtype == torch.bfloat16


def test_targets_that_match_nothing_or_tied_weights_raise():
    with pytest.raises(
        ValueError, match=r"no linear layer matches '\*\.q_proj'; the model has blocks\.0\.attention\.query"
    ):
        add_adapters(decoder(), AdapterConfig(("*.q_proj",)))
    tied = Decoder(DecoderConfig(vocab_size=31, width=24, depth=1, heads=4, kv_heads=2, mlp_dim=40, tied=True))
    with pytest.raises(ValueError, match="output shares its weight"):
        add_adapters(tied, AdapterConfig(("*",)))
    add_adapters(tied, AdapterConfig(("blocks.*",)))
    with pytest.raises(ValueError, match="has adapters already"):
        add_adapters(tied, AdapterConfig(("blocks.*",)))
    with pytest.raises(ValueError, match="no adapters"):
        merge_adapters(decoder())
    with pytest.raises(ValueError, match="tuple of patterns"):
        AdapterConfig("*.query")
    with pytest.raises(ValueError, match="alpha is 0"):
        AdapterConfig(("*",), alpha=0)
    with pytest.raises(ValueError, match="a rank of 9 for a layer of 7 → 5"):
        LoRALinear(nn.Linear(7, 5), rank=9, scale=1.0)


@pytest.mark.parametrize("layer_class", [None, Int8Linear, NF4Linear], ids=["float32", "int8", "nf4"])
def test_a_row_of_zeros_stays_finite_in_dora_and_learns(layer_class):
    """A pruned output has no direction to keep: it starts at zero and is trained like any other."""
    torch.manual_seed(0)
    base = nn.Linear(6, 5, bias=False)
    with torch.no_grad():
        base.weight[1] = 0.0
    adapter = DoRALinear(base if layer_class is None else layer_class(base), rank=2, scale=1.0)
    x, target = torch.randn(8, 6), torch.randn(8, 5)
    assert torch.equal(adapter(x)[:, 1], torch.zeros(8))
    optimizer = torch.optim.SGD([p for p in adapter.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(60):
        loss = (adapter(x) - target)[:, 1].square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in adapter.parameters() if p.requires_grad)
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    assert adapter.merged_weight().isfinite().all()
    torch.testing.assert_close(x @ adapter.merged_weight().T, adapter(x), rtol=1e-4, atol=1e-4)
