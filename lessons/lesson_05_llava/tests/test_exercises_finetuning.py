"""The exercises of the second part. Each is reached through `student` alone: tensors in, tensors out."""

import pytest
import torch
from torch.nn import functional as F


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


# ── 5.9 and 5.10: LoRA ────────────────────────────────────────────────────────────────────────────────────────────────

UPDATE, MERGE = "shared.finetuning.lora:low_rank_update", "shared.finetuning.lora:merge_low_rank"


def low_rank(inputs=7, rank=2, outputs=5):
    return {"down": torch.randn(rank, inputs), "up": torch.randn(outputs, rank)}


@pytest.mark.exercise("5.9")
@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7)])
def test_the_update_is_the_scaled_product_with_both_matrices(student, shape):
    matrices, x = low_rank(), torch.randn(shape)
    update = student(UPDATE, x=x, scale=3.0, **matrices)
    close(update, 3.0 * (x @ matrices["down"].T @ matrices["up"].T), 1e-4)


@pytest.mark.exercise("5.9")
def test_input_and_both_matrices_receive_gradients(student):
    matrices, x, upstream = low_rank(), torch.randn(4, 7), torch.randn(4, 5)
    _, gradients = student(UPDATE, upstream=upstream, x=x, scale=0.5, **matrices)
    close(gradients["up"], 0.5 * upstream.T @ (x @ matrices["down"].T), 1e-4)
    close(gradients["down"], 0.5 * (upstream @ matrices["up"]).T @ x, 1e-4)
    close(gradients["x"], 0.5 * upstream @ matrices["up"] @ matrices["down"], 1e-4)


@pytest.mark.exercise("5.10")
def test_the_merged_weight_gives_the_output_of_base_and_update(student):
    matrices, weight, x = low_rank(), torch.randn(5, 7), torch.randn(3, 7)
    merged = student(MERGE, weight=weight, scale=2.0, **matrices)
    assert merged.shape == weight.shape
    close(x @ merged.T, x @ weight.T + 2.0 * x @ matrices["down"].T @ matrices["up"].T, 1e-4)


@pytest.mark.exercise("5.10")
def test_the_sum_has_the_precision_of_the_adapter(student):
    """A bfloat16 weight has 8 bits of precision; the small update would be lost in it."""
    matrices, weight = low_rank(), torch.randn(5, 7).to(torch.bfloat16)
    merged = student(MERGE, weight=weight, scale=1e-4, **matrices)
    assert merged.dtype == torch.float32
    close(merged, weight.float() + 1e-4 * matrices["up"] @ matrices["down"], 1e-7)


@pytest.mark.exercise("5.10")
def test_a_weight_of_more_precision_is_rounded_to_the_adapters(student):
    matrices, weight = low_rank(), torch.randn(5, 7).double()
    assert student(MERGE, weight=weight, scale=1.0, **matrices).dtype == torch.float32


# ── 5.11: DoRA ────────────────────────────────────────────────────────────────────────────────────────────────────────

DORA = "shared.finetuning.lora:dora_row_scale"


@pytest.mark.exercise("5.11")
def test_scaled_rows_have_the_given_lengths(student):
    merged, magnitude = torch.randn(5, 7), torch.rand(5) + 0.5
    scale = student(DORA, merged=merged, magnitude=magnitude)
    assert scale.shape == (5,)
    close((scale[:, None] * merged).square().sum(dim=1).sqrt(), magnitude)


@pytest.mark.exercise("5.11")
def test_the_norm_is_a_constant_in_the_backward_pass(student):
    merged, magnitude, upstream = torch.randn(5, 7), torch.rand(5) + 0.5, torch.randn(5)
    _, gradients = student(DORA, upstream=upstream, merged=merged, magnitude=magnitude)
    close(gradients["magnitude"], upstream / merged.square().sum(dim=1).sqrt())
    assert (gradients["merged"] == 0).all()


# ── 5.12: NF4 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

QUANTIZE = "shared.finetuning.nf4:quantize_nf4"
NEGATIVE_LEVELS = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.09105]
POSITIVE_LEVELS = [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.562617, 0.7229568, 1.0]
LEVELS = torch.tensor([*NEGATIVE_LEVELS, 0.0, *POSITIVE_LEVELS])


def unpack(packed):
    return torch.stack((packed >> 4, packed & 15), dim=1).flatten().int()


@pytest.mark.exercise("5.12")
def test_weights_at_the_levels_receive_their_codes_first_in_the_upper_half(student):
    weight = LEVELS.repeat(4) * 2.5
    packed, largest = student(QUANTIZE, weight=weight)
    assert packed.dtype == torch.uint8 and packed.shape == (32,)
    assert unpack(packed).tolist() == list(range(16)) * 4
    close(largest, torch.tensor([2.5]))


@pytest.mark.exercise("5.12")
def test_every_weight_is_rounded_to_the_nearest_level_of_its_block(student):
    weight = torch.randn(6, 64) * torch.tensor([0.01, 1.0, 50.0, 1.0, 2.0, 3.0])[:, None]
    packed, largest = student(QUANTIZE, weight=weight)
    close(largest, weight.abs().amax(dim=1))
    relative = weight / largest[:, None]
    nearest = (relative[..., None] - LEVELS).abs().argmin(dim=-1).flatten()
    assert torch.equal(unpack(packed), nearest.int())


@pytest.mark.exercise("5.12")
@pytest.mark.parametrize(("count", "blocks"), [(64, 1), (65, 2), (66, 2), (130, 3), (1, 1)])
def test_the_last_block_may_be_shorter(student, count, blocks):
    weight = torch.randn(count)
    packed, largest = student(QUANTIZE, weight=weight)
    assert largest.shape == (blocks,) and packed.shape == ((count + 1) // 2,)
    restored = LEVELS[unpack(packed)[:count]] * largest.repeat_interleave(64)[:count]
    assert (restored - weight).abs().max() <= 0.16 * largest.max()


@pytest.mark.exercise("5.12")
def test_a_block_of_zeros_stays_zero(student):
    packed, largest = student(QUANTIZE, weight=torch.zeros(64))
    assert largest.tolist() == [0.0] and unpack(packed).tolist() == [7] * 64


@pytest.mark.exercise("5.12")
def test_half_precision_weights_are_quantized_in_float32(student):
    weight = torch.randn(128).bfloat16()
    half, single = student(QUANTIZE, weight=weight), student(QUANTIZE, weight=weight.float())
    assert half[1].dtype == torch.float32
    assert torch.equal(half[0], single[0]) and torch.equal(half[1], single[1])


# ── 5.13: DPO ─────────────────────────────────────────────────────────────────────────────────────────────────────────

DPO = "shared.finetuning.preference:dpo_pair_losses"


def log_probabilities():
    names = ("preferred", "rejected", "reference_preferred", "reference_rejected")
    return {name: -10 * torch.rand(6) for name in names}


def expected_margin(values, beta):
    preferred = values["preferred"] - values["reference_preferred"]
    return beta * (preferred - (values["rejected"] - values["reference_rejected"]))


@pytest.mark.exercise("5.13")
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_the_loss_is_the_negative_log_sigmoid_of_the_margin(student, beta):
    values = log_probabilities()
    losses, preferred, rejected = student(DPO, **values, beta=beta)
    close(losses, -F.logsigmoid(expected_margin(values, beta)))
    close(preferred, beta * (values["preferred"] - values["reference_preferred"]))
    close(rejected, beta * (values["rejected"] - values["reference_rejected"]))


@pytest.mark.exercise("5.13")
def test_only_the_trained_model_receives_gradients(student):
    values, upstream = log_probabilities(), torch.randn(6)
    _, gradients = student(DPO, upstream=upstream, **values, beta=0.3)
    weight = -0.3 * torch.sigmoid(-expected_margin(values, 0.3)) * upstream
    close(gradients["preferred"], weight)
    close(gradients["rejected"], -weight)
    assert (gradients["reference_preferred"] == 0).all() and (gradients["reference_rejected"] == 0).all()


@pytest.mark.exercise("5.13")
def test_a_pair_far_on_the_wrong_side_has_a_finite_loss_and_gradient(student):
    values = {"preferred": -4000 - torch.rand(3), "rejected": -torch.rand(3)}
    values |= {"reference_preferred": torch.zeros(3), "reference_rejected": torch.zeros(3)}
    (losses, _, _), gradients = student(DPO, upstream=torch.ones(3), **values, beta=0.5)
    close(losses, 0.5 * (values["rejected"] - values["preferred"]), 1e-2)
    close(gradients["preferred"], torch.full((3,), -0.5))


# ── 5.14: distillation ────────────────────────────────────────────────────────────────────────────────────────────────

DISTILLATION = "shared.finetuning.distillation:distillation_loss"


def logits_and_answers():
    answers = torch.tensor([[0, 1, 1, 0, 1], [0, 0, 1, 1, 0]]).bool()
    return {"student_logits": torch.randn(2, 5, 9), "teacher_logits": torch.randn(2, 5, 9), "loss_mask": answers}


@pytest.mark.exercise("5.14")
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_loss_is_the_mean_kl_of_teacher_to_student_before_answer_tokens(student, temperature):
    values = logits_and_answers()
    loss = student(DISTILLATION, **values, temperature=temperature)
    rows = [(0, 0), (0, 1), (0, 3), (1, 1), (1, 2)]
    total = 0.0
    for row, position in rows:
        teacher = (values["teacher_logits"][row, position].double() / temperature).softmax(-1)
        model = (values["student_logits"][row, position].double() / temperature).softmax(-1)
        total += (teacher * (teacher.log() - model.log())).sum()
    close(loss, temperature**2 * total / len(rows))


@pytest.mark.exercise("5.14")
def test_the_teacher_receives_no_gradient(student):
    values = logits_and_answers()
    _, gradients = student(DISTILLATION, upstream=torch.tensor(1.0), **values, temperature=2.0)
    assert (gradients["teacher_logits"] == 0).all() and gradients["student_logits"].abs().max() > 1e-3


@pytest.mark.exercise("5.14")
def test_equal_logits_cost_nothing(student):
    values = logits_and_answers()
    values["teacher_logits"] = values["student_logits"].clone()
    assert student(DISTILLATION, **values).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.exercise("5.14")
def test_half_precision_logits_are_compared_in_float32(student):
    values = logits_and_answers()
    half = values | {name: values[name].bfloat16() for name in ("student_logits", "teacher_logits")}
    single = half | {name: half[name].float() for name in ("student_logits", "teacher_logits")}
    assert student(DISTILLATION, **half).dtype == torch.float32
    close(student(DISTILLATION, **half), student(DISTILLATION, **single), 1e-6)
    mixed = single | {"teacher_logits": half["teacher_logits"]}
    close(student(DISTILLATION, **mixed, temperature=3.0), student(DISTILLATION, **single, temperature=3.0), 1e-6)
    mixed = single | {"student_logits": half["student_logits"]}
    close(student(DISTILLATION, **mixed, temperature=3.0), student(DISTILLATION, **single, temperature=3.0), 1e-6)


@pytest.mark.exercise("5.14")
@pytest.mark.parametrize("name", ["student_logits", "teacher_logits"])
def test_large_logits_have_a_finite_divergence(student, name):
    values = logits_and_answers()
    shifted = values | {name: values[name] + 500.0}
    close(student(DISTILLATION, **shifted), student(DISTILLATION, **values), 1e-3)


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        UPDATE,
        {"x": torch.ones(1, 3), "down": torch.ones(2, 3), "up": torch.ones(1, 2), "scale": 1.0},
        [(1, 1)],
        marks=pytest.mark.exercise("5.9"),
    ),
    pytest.param(
        MERGE,
        {"weight": torch.ones(1, 3), "down": torch.ones(2, 3), "up": torch.ones(1, 2), "scale": 1.0},
        [(1, 3)],
        marks=pytest.mark.exercise("5.10"),
    ),
    pytest.param(
        DORA, {"merged": torch.ones(1, 3), "magnitude": torch.ones(1)}, [(1,)], marks=pytest.mark.exercise("5.11")
    ),
    pytest.param(
        DPO,
        dict.fromkeys(("preferred", "rejected", "reference_preferred", "reference_rejected"), torch.ones(1))
        | {"beta": 0.1},
        [(1,)] * 3,
        marks=pytest.mark.exercise("5.13"),
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
