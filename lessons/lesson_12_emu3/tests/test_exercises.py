"""What each exercise must do. `shared/teaching` runs these tests against stubs, solutions and planted bugs."""

import math

import pytest
import torch

LONG = torch.long


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected.to(actual.dtype), atol=tolerance, rtol=tolerance)


# ── 12.1: padding of a causal convolution ─────────────────────────────────────────────────────────────────────────────

PAD = "model.convolution3d:pad_causally"


@pytest.mark.exercise("12.1")
@pytest.mark.parametrize(
    ("kernel", "stride", "before", "after"),
    [
        ((3, 3, 3), (1, 1, 1), (2, 1, 1), (0, 1, 1)),
        ((4, 3, 3), (2, 1, 1), (2, 1, 1), (0, 1, 1)),
        ((3, 1, 1), (1, 1, 1), (2, 0, 0), (0, 0, 0)),
        ((3, 4, 2), (1, 1, 1), (2, 2, 1), (0, 1, 0)),
        ((3, 7, 4), (1, 2, 3), (2, 3, 1), (0, 2, 0)),
    ],
)
def test_zeros_stand_before_the_frames_and_around_them(student, kernel, stride, before, after):
    x = torch.randn(2, 1, 4, 5, 6)
    upstream = torch.randn(2, 1, *(size + a + b for size, a, b in zip((4, 5, 6), before, after, strict=True)))
    result, gradients = student(PAD, x=x, kernel=kernel, stride=stride, upstream=upstream)
    inside = tuple(slice(start, start + size) for start, size in zip(before, (4, 5, 6), strict=True))
    assert result.shape == upstream.shape
    assert torch.equal(result[(slice(None), slice(None), *inside)], x)
    assert result.count_nonzero() == x.count_nonzero()
    assert torch.equal(gradients["x"], upstream[(slice(None), slice(None), *inside)])


# ── 12.2: norms that the codes modulate ───────────────────────────────────────────────────────────────────────────────

MODULATE = "model.spatial:modulate"


def modulated(normalized, entries, gain, shift):
    """Compute place by place in 64 bits."""
    frames, channels, height, width = normalized.shape
    rows, columns = entries.shape[2:]
    expected = torch.zeros(frames, channels, height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            entry = entries[:, :, row * rows // height, column * columns // width].double()
            scale, offset = (entry @ weight.double().T + bias.double() for weight, bias in (gain, shift))
            expected[:, :, row, column] = normalized[:, :, row, column].double() * scale + offset
    return expected


@pytest.mark.exercise("12.2")
@pytest.mark.parametrize(("height", "width"), [(2, 3), (4, 6), (8, 12)])
def test_each_place_has_the_gain_and_the_shift_of_its_code(student, height, width):
    normalized, entries = torch.randn(2, 4, height, width), torch.randn(2, 5, 2, 3)
    gain, shift = ((torch.randn(4, 5), torch.randn(4)) for _ in range(2))
    result = student(MODULATE, normalized=normalized, entries=entries, gain=gain, shift=shift)
    close(result, modulated(normalized, entries, gain, shift))


@pytest.mark.exercise("12.2")
def test_codes_and_features_have_gradients(student):
    normalized, entries, upstream = torch.randn(1, 2, 4, 4), torch.randn(1, 3, 2, 2), torch.randn(1, 2, 4, 4)
    gain, shift = ((torch.randn(2, 3), torch.randn(2)) for _ in range(2))
    arguments = {"normalized": normalized, "entries": entries, "gain": gain, "shift": shift}
    _, gradients = student(MODULATE, **arguments, upstream=upstream)
    copies = [tensor.double().requires_grad_() for tensor in (normalized, entries)]
    expected = torch.autograd.grad((modulated(*copies, gain, shift) * upstream).sum(), copies)
    close(gradients["normalized"], expected[0])
    close(gradients["entries"], expected[1])


# ── 12.3 to 12.5: frames as rows of tokens ────────────────────────────────────────────────────────────────────────────

FRAMES, KINDS, BACK = (f"model.frames:{name}" for name in ("frame_token_ids", "token_kinds", "codes_of_tokens"))


@pytest.mark.exercise("12.3")
def test_rows_and_frames_have_their_ends(student):
    token_ids = torch.tensor([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [1, 1, 2]]])
    result = student(FRAMES, token_ids=token_ids, end_of_line=50, end_of_frame=60)
    assert result.dtype == LONG
    assert result.tolist() == [1, 2, 3, 50, 4, 5, 6, 50, 60, 7, 8, 9, 50, 1, 1, 2, 50, 60]
    result = student(FRAMES, token_ids=token_ids[:1], end_of_line=50, end_of_frame=None)
    assert result.tolist() == [1, 2, 3, 50, 4, 5, 6, 50]


@pytest.mark.exercise("12.3")
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 4), (2, 5, 1)])
@pytest.mark.parametrize("end_of_frame", [None, 99])
def test_the_tokens_of_any_frames(student, shape, end_of_frame):
    token_ids = torch.randint(0, 40, shape)
    result = student(FRAMES, token_ids=token_ids, end_of_line=98, end_of_frame=end_of_frame)
    expected = []
    for frame in token_ids.tolist():
        for row in frame:
            expected += [*row, 98]
        expected += [] if end_of_frame is None else [end_of_frame]
    assert result.tolist() == expected


@pytest.mark.exercise("12.4")
def test_the_kinds_of_an_image_and_of_a_video(student):
    assert student(KINDS, frames=1, rows=2, columns=3).tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4]
    assert student(KINDS, frames=2, rows=1, columns=1).tolist() == [0, 1, 2, 0, 1, 2, 3, 4]


@pytest.mark.exercise("12.4")
def test_the_kinds_of_any_grid(student):
    for frames, rows, columns in torch.randint(1, 6, (6, 3)).tolist():
        kinds = student(KINDS, frames=frames, rows=rows, columns=columns).tolist()
        assert len(kinds) == frames * (rows * (columns + 1) + 1) + 2 and kinds[-2:] == [3, 4]
        per_frame = rows * (columns + 1) + 1
        for place, kind in enumerate(kinds[:-2]):
            inside = place % per_frame
            expected = 2 if inside == per_frame - 1 else 1 if inside % (columns + 1) == columns else 0
            assert kind == expected, place


@pytest.mark.exercise("12.5")
def test_the_codes_stand_where_no_marker_does(student):
    tokens = torch.tensor([[1, 2, 3, 50, 4, 5, 6, 50, 60, 70, 80], [9, 8, 7, 50, 6, 5, 4, 50, 60, 70, 80]])
    result = student(BACK, token_ids=tokens, frames=1, rows=2, columns=3)
    assert result.tolist() == [[[[1, 2, 3], [4, 5, 6]]], [[[9, 8, 7], [6, 5, 4]]]]


@pytest.mark.exercise("12.5")
def test_the_codes_of_any_frames(student):
    for frames, rows, columns, rest in torch.randint(1, 5, (6, 4)).tolist():
        codes = torch.randint(0, 90, (3, frames, rows, columns))
        ends = [99] * rest
        tokens = [
            [token for frame in row for line in frame for token in [*line, 97, *([98] if line is frame[-1] else [])]]
            + ends
            for row in codes.tolist()
        ]
        result = student(BACK, token_ids=torch.tensor(tokens), frames=frames, rows=rows, columns=columns)
        assert torch.equal(result, codes)


# ── 12.6: classifier-free guidance ────────────────────────────────────────────────────────────────────────────────────

GUIDE = "model.generation:guide_logits"


@pytest.mark.exercise("12.6")
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 4.0])
def test_probabilities_are_multiplied_by_a_power_of_their_ratio(student, scale):
    conditional, unconditional = 2 * torch.randn(3, 6), 2 * torch.randn(3, 6)
    result = student(GUIDE, conditional=conditional, unconditional=unconditional, scale=scale)
    with_caption, without = conditional.double().softmax(-1), unconditional.double().softmax(-1)
    close(result.exp(), without * (with_caption / without) ** scale)


@pytest.mark.exercise("12.6")
def test_a_number_that_is_added_to_all_logits_changes_no_probability(student):
    conditional, unconditional = torch.randn(2, 5), torch.randn(2, 5)
    first = student(GUIDE, conditional=conditional, unconditional=unconditional, scale=2.5)
    second = student(GUIDE, conditional=conditional + 7, unconditional=unconditional - 11, scale=2.5)
    close(first, second, 1e-4)


@pytest.mark.exercise("12.6")
def test_16_bits_and_excluded_tokens(student):
    conditional, unconditional = torch.tensor([[300.0, 299.0]]).half(), torch.tensor([[299.0, 300.0]]).half()
    result = student(GUIDE, conditional=conditional, unconditional=unconditional, scale=1.0)
    assert result.dtype == torch.float32
    close(result, torch.tensor([[-math.log1p(math.exp(-1)), -1 - math.log1p(math.exp(-1))]]))
    assert (
        student(GUIDE, conditional=torch.zeros(1, 2).double(), unconditional=torch.zeros(1, 2).double(), scale=2.0)[
            0, 0
        ].dtype
        == torch.float64
    )


@pytest.mark.exercise("12.6")
def test_both_sides_have_gradients(student):
    conditional, unconditional, upstream = torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 4)
    _, gradients = student(GUIDE, conditional=conditional, unconditional=unconditional, scale=3.0, upstream=upstream)
    for name, factor, logits in (("conditional", 3.0, conditional), ("unconditional", -2.0, unconditional)):
        expected = factor * (upstream - logits.softmax(-1) * upstream.sum(-1, keepdim=True))
        close(gradients[name], expected)


# ── 12.7 and 12.8: losses ─────────────────────────────────────────────────────────────────────────────────────────────

LOSS, PAIRS = (f"model.preference:{name}" for name in ("weighted_next_token_loss", "preference_pairs"))


def weighted_loss(logits, token_ids, segments, is_vision, weight):
    terms, total = torch.zeros(()).double(), 0.0
    for row in range(len(token_ids)):
        for place in range(1, token_ids.shape[1]):
            document, target = segments[row, place], int(token_ids[row, place])
            if document >= 0 and document == segments[row, place - 1]:
                factor = weight if is_vision[target] else 1.0
                terms = terms - factor * logits[row, place - 1].double().log_softmax(-1)[target]
                total += factor
    return terms / total


def loss_inputs():
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, -1], [0, 0, 0, 0, 0, 0, 0], [2, 2, -1, -1, 3, 3, -1]])
    is_vision = torch.rand(9) < 0.5
    is_vision[:2] = torch.tensor([True, False])
    return torch.randn(3, 7, 9), torch.randint(0, 9, (3, 7)), segments, is_vision


@pytest.mark.exercise("12.7")
@pytest.mark.parametrize("weight", [0.5, 1.0, 0.0, 3.0])
def test_vision_tokens_have_a_weight(student, weight):
    logits, token_ids, segments, is_vision = loss_inputs()
    arguments = {"logits": logits, "token_ids": token_ids, "segments": segments, "is_vision": is_vision}
    result, gradients = student(LOSS, **arguments, vision_weight=weight, upstream=torch.ones(()))
    copy = logits.double().requires_grad_()
    expected = weighted_loss(copy, token_ids, segments, is_vision, weight)
    close(result, expected.detach())
    close(gradients["logits"], torch.autograd.grad(expected, copy)[0])


@pytest.mark.exercise("12.7")
def test_half_precision_is_computed_in_32_bits(student):
    logits, token_ids, segments, is_vision = loss_inputs()
    logits = logits.bfloat16()
    result = student(
        LOSS, logits=logits, token_ids=token_ids, segments=segments, is_vision=is_vision, vision_weight=0.5
    )
    assert result.dtype == torch.float32
    close(result, weighted_loss(logits, token_ids, segments, is_vision, 0.5))


@pytest.mark.exercise("12.8")
def test_the_best_and_the_worst_sample_form_a_pair(student):
    scores = torch.tensor([[0.1, 0.9, 0.4], [0.5, 0.5, 0.5], [0.7, 0.2, 0.2], [0.3, 0.3, 0.8], [0.25, 0.5, 0.75]])
    prompts, preferred, rejected = student(PAIRS, scores=scores, margin=0.5)
    assert (prompts.tolist(), preferred.tolist(), rejected.tolist()) == ([0], [1], [0])
    prompts, preferred, rejected = student(PAIRS, scores=scores, margin=0.0)
    assert prompts.tolist() == [0, 2, 3, 4] and preferred.tolist() == [1, 0, 2, 2] and rejected.tolist() == [0, 1, 0, 0]


@pytest.mark.exercise("12.8")
def test_the_pairs_of_any_scores(student):
    scores = torch.randint(0, 5, (30, 4)).float()
    margin = float(torch.randint(0, 4, ()))
    prompts, preferred, rejected = student(PAIRS, scores=scores, margin=margin)
    expected = [
        (row, values.index(max(values)), values.index(min(values)))
        for row, values in enumerate(scores.tolist())
        if max(values) - min(values) > margin
    ]
    assert list(zip(prompts.tolist(), preferred.tolist(), rejected.tolist(), strict=True)) == expected


# ── 12.9: twice as many frames ────────────────────────────────────────────────────────────────────────────────────────

REPEAT = "model.clip_tokenizer:repeat_after_first"


@pytest.mark.exercise("12.9")
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_every_frame_but_the_first_stands_twice(student, frames):
    x, upstream = torch.randn(2, 3, frames, 4, 2), torch.randn(2, 3, 2 * frames - 1, 4, 2)
    result, gradients = student(REPEAT, x=x, upstream=upstream)
    assert result.shape == upstream.shape
    expected = torch.zeros_like(x)
    for place in range(2 * frames - 1):
        assert torch.equal(result[:, :, place], x[:, :, (place + 1) // 2])
        expected[:, :, (place + 1) // 2] += upstream[:, :, place]
    close(gradients["x"], expected)


# ── 12.10 and 12.11: rectified flow ───────────────────────────────────────────────────────────────────────────────────

LINE, STEP = (f"model.rectified_flow:{name}" for name in ("interpolate", "euler_step"))


@pytest.mark.exercise("12.10")
@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2, 3, 5)])
def test_the_line_from_data_to_noise(student, shape):
    data, noise, times = torch.randn(shape), torch.randn(shape), torch.rand(4)
    times[:2] = torch.tensor([0.0, 1.0])
    x, velocity = student(LINE, data=data, noise=noise, times=times)
    close(x[:2], torch.stack([data[0], noise[1]]))
    for row, t in enumerate(times.tolist()):
        close(x[row], data[row] + t * (noise[row] - data[row]))
    close(velocity, noise - data)


@pytest.mark.exercise("12.10")
def test_data_and_noise_have_gradients(student):
    data, noise, times, upstream = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([0.25, 0.75]), torch.randn(2, 3)
    _, gradients = student(LINE, data=data, noise=noise, times=times, upstream=upstream)
    close(gradients["data"], upstream * torch.tensor([[0.75], [0.25]]))
    close(gradients["noise"], upstream * torch.tensor([[0.25], [0.75]]))
    close(gradients["times"], ((noise - data) * upstream).sum(dim=1))


@pytest.mark.exercise("12.11")
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.75), (0.25, 0.0), (0.0, 0.5)])
def test_a_step_along_the_velocity(student, start, end):
    data, noise, upstream = torch.randn(2, 1, 4), torch.randn(2, 1, 4), torch.randn(2, 1, 4)
    x = (1 - start) * data + start * noise
    result, gradients = student(STEP, x=x, velocity=noise - data, start=start, end=end, upstream=upstream)
    close(result, (1 - end) * data + end * noise)
    close(gradients["x"], upstream)
    close(gradients["velocity"], (end - start) * upstream)
