"""Identities of the mechanism: pixel unshuffle, V2PE, square averaging, the mixer, and reference against PyTorch."""

from random import Random

import torch
from einops import rearrange

from lessons.lesson_10_internvl import reference
from lessons.lesson_10_internvl.model import STEPS, averaged_loss, token_steps, v2pe_positions
from lessons.lesson_10_internvl.model.corpus_mixer import document_probabilities
from lessons.lesson_10_internvl.model.positions import largest_position
from lessons.lesson_10_internvl.model.projector import pixel_unshuffle
from shared.course.context import RunContext
from shared.torch_conversion import max_abs_difference, to_torch
from shared.transformer import Rotary
from shared.transformer.rotary import rotate

CASES = 100


def check_mechanism(context: RunContext) -> dict[str, float]:
    """Return numbers that must be 0, up to rounding; only the seed is used.

    unshuffle_difference  between a grid and the grid that is put together again from its unshuffled squares
    rotary_difference     between the angles of V2PE with δ = 1 and of ordinary rotary encoding
    position_mismatches   sequences whose last position is not (text tokens − 1) + δ · visual tokens
    averaging_difference  between square averaging over tokens, and the mean over samples with the weights √length
    mixture_difference    between the mixture's fractions of tokens and those that the drawn documents are expected to
                          have
    reference_difference  between rotations at V2PE positions of the pure-Python and the PyTorch version
    """
    torch.manual_seed(context.seed)
    random = Random(context.seed)
    return {
        "unshuffle_difference": unshuffle_difference(),
        "rotary_difference": rotary_difference(),
        "position_mismatches": float(position_mismatches(random)),
        "averaging_difference": averaging_difference(),
        "mixture_difference": mixture_difference(),
        "reference_difference": reference_difference(random),
    }


def unshuffle_difference() -> float:
    """Return the largest difference after unshuffling grids and putting their squares back."""
    worst = 0.0
    for factor in (1, 2, 4):
        grid = torch.randn(3, 8, 12, 5)
        squares = pixel_unshuffle(grid, factor)
        back = rearrange(squares, "n r c (p q w) -> n (r p) (c q) w", p=factor, q=factor)
        worst = max(worst, max_abs_difference(back, grid))
    return worst


def rotary_difference() -> float:
    """Return the largest difference between angles at V2PE positions with δ = 1 and at the places 0, 1, 2, …"""
    is_visual = torch.zeros(1, 60, dtype=torch.bool)
    is_visual[:, 5:21] = is_visual[:, 30:46] = True
    positions = v2pe_positions(token_steps(is_visual, torch.ones(2)))
    rotary = Rotary(16)
    return max_abs_difference(rotary(positions[..., None]), rotary(torch.arange(60)[None, :, None]))


def position_mismatches(random: Random) -> int:
    """Return the number of random sequences whose last position differs from the formula."""
    wrong = 0
    for _ in range(CASES):
        step = random.choice(STEPS)
        lengths = [(random.randint(1, 9), random.randint(1, 300)) for _ in range(random.randint(1, 6))]
        flags = [flag for text, visual in lengths for flag in [False] * text + [True] * visual]
        positions = v2pe_positions(token_steps(torch.tensor([flags]), torch.full((len(lengths),), step)))
        text, visual = (sum(column) for column in zip(*lengths, strict=True))
        wrong += positions[0, -1].item() != largest_position(text, visual, step)
    return wrong


def averaging_difference() -> float:
    """Return the difference between square averaging and the mean over samples, each with the weight √length."""
    losses = torch.rand(4, 20, dtype=torch.float64)
    lengths = (1, 4, 9, 20)
    mask = torch.arange(20) < torch.tensor(lengths)[:, None]
    segments = torch.zeros(4, 20, dtype=torch.long)
    weights = torch.tensor(lengths, dtype=torch.float64).sqrt()
    means = torch.stack([row[:length].mean() for row, length in zip(losses, lengths, strict=True)])
    expected = (weights * means).sum() / weights.sum()
    return max_abs_difference(averaged_loss(losses, mask, segments).mean(), expected)


def mixture_difference() -> float:
    """Return the largest difference between requested and expected fractions of tokens."""
    fractions = torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64)
    lengths = torch.tensor([70.0, 12.5, 3.0], dtype=torch.float64)
    tokens = document_probabilities(fractions, lengths) * lengths
    return max_abs_difference(tokens / tokens.sum(), fractions)


def reference_difference(random: Random) -> float:
    """Return the largest difference between vectors rotated by the pure-Python and by the PyTorch version."""
    flags = [False] * 3 + [True] * 8 + [False] * 4 + [True] * 8 + [False] * 2
    steps = [1 / 4, 1 / 64]
    positions = reference.v2pe_positions(flags, steps)
    values = [random.gauss(0, 1) for _ in range(len(flags) * 16)]
    plain = reference.rotate(reference.Tensor(values, (1, 1, len(flags), 16)), positions, 100.0)
    expected = v2pe_positions(token_steps(torch.tensor([flags]), torch.tensor(steps).double()))
    pairs = torch.arange(8, dtype=torch.float64)
    angles = expected[..., None] * 100.0 ** (-pairs / 8)
    rotated = rotate(torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1, 16), angles)
    return max_abs_difference(to_torch(plain), rotated)
