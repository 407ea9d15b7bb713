"""What each exercise must do. `shared/teaching` runs these tests against stubs, solutions and planted bugs."""

import math

import pytest
import torch

LONG = torch.long


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected.to(actual.dtype), atol=tolerance, rtol=tolerance)


# ── 11.1 to 11.3: one vocabulary ──────────────────────────────────────────────────────────────────────────────────────

CODES, SPLICE, LOOKUP = (
    f"model.vocabulary:{name}" for name in ("codes_of_names", "splice_codes", "codes_of_token_ids")
)


@pytest.mark.exercise("11.1")
def test_letters_are_digits(student):
    names = ["IMGIMGAZ", "IMGIMGBZ", "IMGIMGDAFZ", "IMGIMGIBJBZ", "IMGIMGAACZ", "IMGIMGBAAZ", "IMGIMGJZ"]
    result = student(CODES, names=names)
    assert result.dtype == LONG and result.tolist() == [0, 1, 305, 8191, 2, 100, 9]


@pytest.mark.exercise("11.1")
def test_no_names_are_no_codes(student):
    result = student(CODES, names=[])
    assert result.dtype == LONG and result.tolist() == []


@pytest.mark.exercise("11.1")
def test_names_of_any_codes(student):
    codes = torch.randperm(8192)[:20].tolist()
    names = ["IMGIMG" + "".join(chr(ord("A") + int(digit)) for digit in str(code)) + "Z" for code in codes]
    assert student(CODES, names=names).tolist() == codes


@pytest.mark.exercise("11.2")
def test_codes_take_the_place_of_placeholders_in_reading_order(student):
    token_ids = torch.tensor([[1, 9, 9, 2, 9], [9, 3, 9, 9, 4]])
    codes, code_token_ids = torch.tensor([[2, 0, 1], [3, 3, 0]]), torch.tensor([15, 11, 18, 12])
    result = student(SPLICE, token_ids=token_ids, codes=codes, code_token_ids=code_token_ids, placeholder=9)
    assert result.tolist() == [[1, 18, 15, 2, 11], [12, 3, 12, 15, 4]]


@pytest.mark.exercise("11.2")
def test_a_prompt_without_images(student):
    token_ids, codes = torch.tensor([[1, 2]]), torch.zeros(0, 3, dtype=LONG)
    result = student(SPLICE, token_ids=token_ids, codes=codes, code_token_ids=torch.tensor([5]), placeholder=9)
    assert result.tolist() == [[1, 2]]


@pytest.mark.exercise("11.2")
def test_codes_of_any_images(student):
    token_ids = torch.randint(1, 8, (3, 12)).masked_fill(torch.rand(3, 12) < 0.5, 9)
    code_token_ids = 10 + torch.randperm(30)[:16]
    codes = torch.randint(0, 16, (1, int((token_ids == 9).sum())))
    result = student(SPLICE, token_ids=token_ids, codes=codes, code_token_ids=code_token_ids, placeholder=9)
    following = iter(codes.flatten().tolist())
    expected = [
        [code_token_ids[next(following)].item() if token_id == 9 else token_id for token_id in row]
        for row in token_ids.tolist()
    ]
    assert result.tolist() == expected


@pytest.mark.exercise("11.3")
def test_token_ids_have_their_codes(student):
    token_ids = torch.tensor([[0, 5, 3], [7, 1, 5]])
    result = student(LOOKUP, token_ids=token_ids, code_token_ids=torch.tensor([3, 7, 0, 5]), vocab_size=8)
    assert result.tolist() == [[2, 3, 0], [1, -1, 3]]


@pytest.mark.exercise("11.3")
def test_codes_of_any_token_ids(student):
    code_token_ids, token_ids = torch.randperm(20)[:8], torch.randint(0, 20, (4, 9))
    result = student(LOOKUP, token_ids=token_ids, code_token_ids=code_token_ids, vocab_size=20)
    codes = {token_id: code for code, token_id in enumerate(code_token_ids.tolist())}
    assert result.tolist() == [[codes.get(token_id, -1) for token_id in row] for row in token_ids.tolist()]


# ── 11.4 and 11.5: QK-norm ────────────────────────────────────────────────────────────────────────────────────────────

NORM, BOUNDS = "model.head_norm:normalize_heads", "model.head_norm:logit_bounds"


def head_inputs():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, generator=generator) * 2 + 1
    gain, bias, upstream = (torch.randn(*shape, generator=generator) for shape in ((3, 5), (3, 5), (2, 3, 4, 5)))
    return {"x": x, "gain": gain, "bias": bias}, upstream


@pytest.mark.exercise("11.4")
def test_each_head_is_normalized_by_itself(student):
    inputs, _ = head_inputs()
    result = student(NORM, **inputs, eps=0.1)
    for head in range(3):
        for token in range(4):
            x = inputs["x"][1, head, token].double()
            expected = (x - x.mean()) / (x.var(unbiased=False) + 0.1).sqrt()
            close(result[1, head, token], expected * inputs["gain"][head] + inputs["bias"][head])


@pytest.mark.exercise("11.4")
def test_any_heads_are_normalized(student):
    x, gain, bias = 3 * torch.randn(2, 4, 5, 6) + 1, torch.randn(4, 6), torch.randn(4, 6)
    result = student(NORM, x=x, gain=gain, bias=bias, eps=1e-3)
    for head in range(4):
        expected = torch.nn.functional.layer_norm(x[:, head], (6,), gain[head], bias[head], 1e-3)
        close(result[:, head], expected)


@pytest.mark.exercise("11.4")
def test_gains_and_biases_have_gradients(student):
    inputs, upstream = head_inputs()
    ones, zeros = torch.ones(3, 5), torch.zeros(3, 5)
    normalized = student(NORM, x=inputs["x"], gain=ones, bias=zeros, eps=1e-5)
    _, gradients = student(NORM, **inputs, eps=1e-5, upstream=upstream)
    close(gradients["gain"], (normalized * upstream).sum(dim=(0, 2)))
    close(gradients["bias"], upstream.sum(dim=(0, 2)))
    close(gradients["x"].sum(dim=-1), torch.zeros(2, 3, 4))
    assert gradients["x"].abs().max() > 0.1


@pytest.mark.exercise("11.5")
def test_the_bound_of_each_head(student):
    query_gain = torch.tensor([[1.0, -3.0, 2.0, 0.0], [0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0], [2.0, 0.0, 0.0, 0.0]])
    query_bias = torch.tensor([[0.0] * 4, [3.0, 0.0, 4.0, 0.0], [0.0] * 4, [0.0, -1.0, 0.0, 0.0]])
    key_gain = torch.tensor([[1.0, 1.0, -4.0, 1.0], [0.5, 0.0, 0.0, 0.0]])
    key_bias = torch.tensor([[0.0, 0.0, 0.0, 2.0], [0.0] * 4])
    result = student(BOUNDS, query_gain=query_gain, query_bias=query_bias, key_gain=key_gain, key_bias=key_bias)
    # |q| is 2 · 3, 2 · 0.5 + 5, 2 and 2 · 2 + 1; |k| is 2 · 4 + 2 and 2 · 0.5.
    close(result, torch.tensor([6 * 10 / 2, 6 * 10 / 2, 2 * 1 / 2, 5 * 1 / 2]))


@pytest.mark.exercise("11.5")
def test_the_bound_of_any_heads(student):
    query_gain, query_bias, key_gain, key_bias = (torch.randn(heads, 9) for heads in (6, 6, 2, 2))
    result = student(BOUNDS, query_gain=query_gain, query_bias=query_bias, key_gain=key_gain, key_bias=key_bias)
    expected = []
    for head in range(6):
        query = 3 * max(map(abs, query_gain[head].tolist())) + math.hypot(*query_bias[head].tolist())
        key = 3 * max(map(abs, key_gain[head // 3].tolist())) + math.hypot(*key_bias[head // 3].tolist())
        expected.append(query * key / 3)
    close(result, torch.tensor(expected))


@pytest.mark.exercise("11.5")
def test_the_bound_has_gradients(student):
    inputs = {
        "query_gain": torch.tensor([[3.0, -1.0, 1.0]]),
        "query_bias": torch.tensor([[0.0, 4.0, 3.0]]),
        "key_gain": torch.tensor([[1.0, 2.0, 1.0]]),
        "key_bias": torch.tensor([[1.0, 0.0, 0.0]]),
    }
    result, gradients = student(BOUNDS, **inputs, upstream=torch.ones(1))
    query, key, root = 3 * 3**0.5 + 5, 2 * 3**0.5 + 1, 3**0.5
    close(result, torch.tensor([query * key / root]))
    close(gradients["query_gain"], torch.tensor([[key, 0.0, 0.0]]))
    close(gradients["key_gain"], torch.tensor([[0.0, query, 0.0]]))
    close(gradients["query_bias"], torch.tensor([[0.0, 0.8, 0.6]]) * key / root)


# ── 11.6: norms after the parts ───────────────────────────────────────────────────────────────────────────────────────

RESIDUAL = "model.block:residual_bounds"


@pytest.mark.exercise("11.6")
def test_each_part_adds_at_most_its_largest_gain(student):
    attention = torch.tensor([[1.0, -2.0], [0.5, 0.25], [3.0, 3.0]])
    mlp = torch.tensor([[0.0, 1.0], [-4.0, 1.0], [0.5, 0.0]])
    upstream = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    arguments = {"first": torch.tensor(7.0), "attention_gains": attention, "mlp_gains": mlp}
    result, gradients = student(RESIDUAL, **arguments, upstream=upstream)
    assert result.tolist() == [7.0, 10.0, 14.5, 18.0]
    assert gradients["first"] == 1111
    assert gradients["attention_gains"].tolist() == [[0, -1110], [1100, 0], [500, 500]]
    assert gradients["mlp_gains"].tolist() == [[0, 1110], [-1100, 0], [1000, 0]]


@pytest.mark.exercise("11.6")
def test_the_bounds_of_any_blocks(student):
    first, attention, mlp = torch.rand(()), torch.randn(5, 4), torch.randn(5, 4)
    result = student(RESIDUAL, first=first, attention_gains=attention, mlp_gains=mlp)
    expected = [first.item()]
    for block in range(5):
        largest = [max(map(abs, gains[block].tolist())) for gains in (attention, mlp)]
        expected.append(expected[-1] + sum(largest))
    close(result, torch.tensor(expected))


# ── 11.7: the z-loss ──────────────────────────────────────────────────────────────────────────────────────────────────

Z_LOSS = "model.losses:z_losses"


@pytest.mark.exercise("11.7")
def test_the_square_of_log_z(student):
    logits = torch.tensor(
        [[[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]], [[-5.0, -5.0, -9.0, -5.0], [2.0, 0.0, 0.0, 0.0]]]
    )
    upstream = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    result, gradients = student(Z_LOSS, logits=logits, upstream=upstream)
    log_z = torch.tensor([[math.log(sum(map(math.exp, row))) for row in rows] for rows in logits.tolist()])
    close(result, log_z**2)
    close(gradients["logits"], (2 * upstream * log_z)[..., None] * logits.softmax(dim=-1))


@pytest.mark.exercise("11.7")
def test_the_square_of_log_z_of_any_logits(student):
    logits = 3 * torch.randn(4, 7).double()
    expected = [math.log(sum(map(math.exp, row))) ** 2 for row in logits.tolist()]
    close(student(Z_LOSS, logits=logits), torch.tensor(expected).double())


@pytest.mark.exercise("11.7")
def test_large_logits_and_16_bits(student):
    result = student(Z_LOSS, logits=torch.tensor([[200.0, 0.0], [-300.0, -300.0]]))
    close(result, torch.tensor([4e4, (math.log(2) - 300) ** 2]))
    # 300² does not fit into float16, and bfloat16 would round log Z.
    result = student(Z_LOSS, logits=torch.tensor([[300.0, 299.0]]).half())
    assert result.dtype == torch.float32
    close(result, torch.tensor([(300 + math.log1p(math.exp(-1))) ** 2]))
    assert student(Z_LOSS, logits=torch.zeros(1, 3).double()).dtype == torch.float64


# ── 11.8 and 11.9: constrained decoding ───────────────────────────────────────────────────────────────────────────────

STATES, ALLOWED = "model.generation:next_states", "model.generation:allowed_tokens"
BEGIN, END = 6, 2


@pytest.mark.exercise("11.8")
def test_states_follow_the_tokens(student):
    sequence = [1, BEGIN, 4, 0, END, 1, BEGIN, 5, 3, END, BEGIN]
    expected = [-1, 0, 1, 2, -1, -1, 0, 1, 2, -1, 0]
    state = torch.tensor([-1])
    for token_id, after in zip(sequence, expected, strict=True):
        state = student(STATES, states=state, token_ids=torch.tensor([token_id]), begin=BEGIN, end=END)
        assert state.tolist() == [after]


@pytest.mark.exercise("11.8")
def test_each_row_has_its_own_state(student):
    states, token_ids = torch.tensor([-1, -1, -1, 0, 7, 3]), torch.tensor([BEGIN, END, 4, 4, 4, END])
    result = student(STATES, states=states, token_ids=token_ids, begin=BEGIN, end=END)
    assert result.dtype == LONG and result.tolist() == [0, -1, -1, 1, 8, -1]


@pytest.mark.exercise("11.8")
def test_states_of_any_sequence(student):
    states = torch.randint(-1, 9, (40,))
    token_ids = torch.where(states < 0, torch.randint(0, 8, (40,)), torch.randint(0, 6, (40,)))
    result = student(STATES, states=states, token_ids=token_ids, begin=BEGIN, end=END)
    expected = [
        (0 if token_id == BEGIN else -1) if state < 0 else (-1 if token_id == END else state + 1)
        for state, token_id in zip(states.tolist(), token_ids.tolist(), strict=True)
    ]
    assert result.tolist() == expected


IS_CODE = torch.tensor([True, False, False, True, True, True, False, False])


def allowed(student, states, tokens_left, image_tokens=3):
    arguments = {"states": torch.tensor(states), "tokens_left": torch.tensor(tokens_left), "is_code": IS_CODE}
    result = student(ALLOWED, **arguments, markers=(BEGIN, END), image_tokens=image_tokens)
    assert result.dtype == torch.bool
    return [row.nonzero().flatten().tolist() for row in result]


@pytest.mark.exercise("11.9")
def test_exactly_n_codes_within_an_image_and_none_outside(student):
    text, codes = [1, BEGIN, 7], [0, 3, 4, 5]
    assert allowed(student, [-1, 0, 1, 2, 3], [99] * 5) == [text, codes, codes, codes, [END]]
    assert allowed(student, [0, 1], [9, 9], image_tokens=1) == [codes, [END]]


@pytest.mark.exercise("11.9")
def test_an_image_needs_space_for_its_codes_and_markers(student):
    with_image, without = [1, BEGIN, 7], [1, 7]
    assert allowed(student, [-1, -1, -1], [5, 4, 6]) == [with_image, without, with_image]
    assert allowed(student, [-1, -1], [3, 2], image_tokens=1) == [with_image, without]
    # An image that has begun is finished.
    assert allowed(student, [2, 3], [2, 1]) == [[0, 3, 4, 5], [END]]


@pytest.mark.exercise("11.9")
def test_allowed_tokens_of_any_states(student):
    states, left, is_code = torch.randint(-1, 5, (40,)), torch.randint(1, 12, (40,)), torch.rand(16) < 0.5
    is_code[[BEGIN, END]] = False
    arguments = {"states": states, "tokens_left": left, "is_code": is_code}
    result = student(ALLOWED, **arguments, markers=(BEGIN, END), image_tokens=4)
    codes = set(is_code.nonzero().flatten().tolist())
    for row, state, tokens in zip(result, states.tolist(), left.tolist(), strict=True):
        if state < 0:
            expected = set(range(16)) - codes - {END} - (set() if tokens >= 6 else {BEGIN})
        else:
            expected = codes if state < 4 else {END}
        assert set(row.nonzero().flatten().tolist()) == expected
