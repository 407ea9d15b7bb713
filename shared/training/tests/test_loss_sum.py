"""A step on several ragged batches is the step on one large batch, whatever the numbers of terms."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.training import LossSum, TrainingConfig, train
from shared.training.loss_sum import add_losses, split_metrics

VOCAB = 13
LENGTHS = (2, 11, 3, 8)
TOKENS = torch.randint(VOCAB, (4, 12), generator=torch.Generator().manual_seed(0))
MASKS = torch.arange(12) < torch.tensor(LENGTHS)[:, None]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB))


def token_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[LossSum, dict[str, LossSum]]:
    token_ids, mask = batch
    logits = model(token_ids)[mask]
    correct = logits.argmax(-1) == token_ids[mask]
    total = F.cross_entropy(logits, token_ids[mask], reduction="sum")
    return LossSum.of(total, mask.sum()), {"accuracy": LossSum.of(correct.sum(), correct.numel())}


def take_steps(rows_of_batches: list[list[int]], loss=token_loss, steps: int = 2, **settings) -> tuple[dict, dict]:
    """Train on these rows in each step; return the weights and the log's last line."""
    result = train(
        model(),
        lambda number: (TOKENS[rows := rows_of_batches[number % len(rows_of_batches)]], MASKS[rows]),
        loss,
        TrainingConfig(
            steps, 0.5, "sgd", 0.0, (0.0, 0.0), "constant", accumulate=len(rows_of_batches), log_every=steps, **settings
        ),
    )
    return result.model.state_dict(), result.history[-1]


@pytest.mark.parametrize("split", [[[0], [1], [2], [3]], [[0, 1], [2, 3]], [[0], [1, 2, 3]]])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_ragged_batches_add_up_to_the_large_batch(split, clip_norm):
    large, large_line = take_steps([[0, 1, 2, 3]], clip_norm=clip_norm)
    accumulated, line = take_steps(split, clip_norm=clip_norm)
    torch.testing.assert_close(accumulated, large, rtol=1e-5, atol=1e-6)
    for name in ("loss", "accuracy", "gradient_norm"):
        assert line[name] == pytest.approx(large_line[name], rel=1e-4), name


def test_the_mean_of_means_would_be_another_step():
    """What the sums and counts are for: 2 tokens weigh as much as 11 in a mean of means."""
    large, _ = take_steps([[0, 1]])
    of_means, _ = take_steps([[0], [1]], loss=lambda model, batch: token_loss(model, batch)[0].mean())
    assert (large["1.weight"] - of_means["1.weight"]).abs().max() > 0.01


def test_a_batch_without_terms_counts_nothing():
    masks = MASKS.clone()
    MASKS[0] = False
    try:
        without, _ = take_steps([[1]])
        accumulated, line = take_steps([[0], [1]])
        torch.testing.assert_close(accumulated, without)
        assert line["loss"] > 0
        with pytest.raises(ValueError, match="the loss has no terms"):
            take_steps([[0], [0]])
    finally:
        MASKS.copy_(masks)


def test_what_a_loss_may_return():
    scalar, summed = torch.tensor(3.0), LossSum.of(torch.tensor(6.0), 4)
    assert split_metrics(scalar) == (LossSum(scalar, torch.tensor(1.0)), {})
    assert split_metrics((scalar, {"a": 1.0})) == (LossSum(scalar, torch.tensor(1.0)), {"a": 1.0})
    assert split_metrics(summed) == (summed, {})
    assert split_metrics((summed, {"a": 1.0})) == (summed, {"a": 1.0})
    assert summed.mean().item() == 1.5 and LossSum.of_mean(torch.tensor(1.5), 4) == summed
    assert add_losses([summed, LossSum.of(torch.tensor(1.0), 3)]).mean().item() == 1.0
