"""The reference and `model/` agree: codes, gradients, losses, codebook updates, and logits with the same weights."""

from random import Random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lessons.lesson_11_chameleon import reference
from lessons.lesson_11_chameleon.model.quantizer import (
    nearest_codes,
    perplexity,
    quantization_loss,
    restart_dead_codes,
    straight_through,
    update_averages,
)
from shared.testing import redraw_weights
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch


def random_vectors(count=60, codes=9, width=3):
    return torch.randn(count, width).double(), torch.randn(codes, width).double()


def test_the_nearest_codes_and_their_perplexity_are_one():
    vectors, codebook = random_vectors()
    codes = nearest_codes(vectors, codebook)
    assert reference.nearest_codes(vectors.tolist(), codebook.tolist()) == codes.tolist()
    assert reference.perplexity(codes.tolist()) == pytest.approx(float(perplexity(codes, 9)))


def test_the_losses_and_their_gradients_are_one():
    vectors, codebook = random_vectors()
    quantized = codebook[nearest_codes(vectors, codebook)]
    upstream = torch.randn(60, 3).double()
    plain = to_stdlib(vectors, True)
    vectors.requires_grad_()
    passed = straight_through(vectors, quantized)
    expected = (passed * upstream).sum() + quantization_loss(vectors, quantized, commitment=0.25)
    expected.backward()
    passed_plain = reference.straight_through(plain, quantized.tolist())
    loss = (passed_plain * to_stdlib(upstream)).sum() + reference.commitment_loss(plain, quantized.tolist()) * 0.25
    loss.backward()
    assert max_abs_difference(to_torch(passed_plain), passed) < 1e-12
    assert loss.item() == pytest.approx(float(expected.detach()))
    assert max_abs_difference(plain.grad, vectors.grad) < 1e-12


def test_the_codebooks_learn_the_same():
    vectors, _ = random_vectors()
    plain = reference.Codebook(9, 3, decay=0.7, restart=0.5)
    counts, sums = torch.zeros(9).double(), torch.zeros(9, 3).double()
    for step in range(5):
        batch = vectors[12 * step : 12 * step + 12]
        dead = counts < 0.5 * 12 / 9
        plain.restart_dead_codes(batch.tolist(), Random(step))
        # The reference draws a vector for dead codes only, in their order.
        random, replacements = Random(step), torch.zeros(9, 3).double()
        for code in dead.nonzero().flatten().tolist():
            replacements[code] = torch.tensor(random.choice(batch.tolist()), dtype=torch.float64)
        counts, sums = restart_dead_codes(counts, sums, replacements, 12 / 9, 0.5)
        entries = sums / counts[:, None]
        assert max_abs_difference(torch.tensor(plain.entries, dtype=torch.float64), entries) < 1e-12
        codes = nearest_codes(batch, entries)
        plain.update(batch.tolist(), codes.tolist())
        counts, sums = update_averages(counts, sums, batch, codes, 0.7)
        assert max_abs_difference(torch.tensor(plain.counts, dtype=torch.float64), counts) < 1e-12
        assert max_abs_difference(torch.tensor(plain.entries, dtype=torch.float64), sums / counts[:, None]) < 1e-12


class SmallEarlyFusion(nn.Module):
    """The reference's transformer in PyTorch."""

    def __init__(self, codebook_size, width, heads):
        super().__init__()
        self.embedding = nn.Embedding(codebook_size + 10, width)
        self.positions = nn.Parameter(torch.zeros(16, width))
        self.blocks = nn.ModuleList([SmallBlock(width, heads)])
        self.norm, self.output = nn.LayerNorm(width, 1e-6), nn.Linear(width, codebook_size + 10, bias=False)

    def forward(self, rows):
        x = self.embedding(rows) + self.positions[: rows.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))


class SmallBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attention, self.mlp = SmallAttention(width, heads), nn.Module()
        self.mlp.up, self.mlp.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp.down(F.gelu(self.mlp.up(self.mlp_norm(x))))


class SmallAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.query_norm, self.key_norm = (nn.LayerNorm(width // heads, 1e-6) for _ in range(2))

    def forward(self, x):
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(self.query_norm(query), self.key_norm(key), value, is_causal=True)
        return self.output(mixed.transpose(1, 2).flatten(2))


def test_same_weights_same_logits_and_gradients():
    torch.manual_seed(0)
    model, plain = redraw_weights(SmallEarlyFusion(7, 12, 3).double()), reference.EarlyFusion(7, 12, 3, Random(0))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    rows = torch.cat([torch.randint(7, 17, (3, 1)), torch.randint(7, (3, 16))], dim=1)
    logits, expected = plain(rows[:, :-1].tolist()), model(rows[:, :-1]).flatten(0, 1)
    assert max_abs_difference(to_torch(logits), expected) < 1e-10
    reference.next_token_loss(plain, rows.tolist()).backward()
    F.cross_entropy(expected, rows[:, 1:].flatten()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == plain.parameters().keys()
    for name, parameter in plain.parameters().items():
        assert max_abs_difference(parameter.grad, gradients[name]) < 1e-10, name
        # A bias of all keys adds the same number to all logits of a query, which the softmax removes.
        assert (gradients[name].abs().max() > 1e-6) == (not name.endswith("key_norm.bias")), name
