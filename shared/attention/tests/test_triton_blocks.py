"""Which tiles are visited: exactly those with a visible pair, and full ones are recognized as full."""

from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from shared.attention import Mask, packed_segments, triton_backward, triton_forward
from shared.attention.inputs import AttentionInputs, OutputGradient
from shared.attention.tests.triton_cases import DEVICE, UNIT, count, named_masks, need_a_device, runs
from shared.attention.triton_blocks import blocks_to_visit, full_block, partial_block, plan_visits
from shared.attention.triton_launch import Reach, tiles

pytestmark = need_a_device()


def tiles_of(mask: Mask, q_len: int, k_len: int, block_q: int, block_k: int, owner: str) -> torch.Tensor:
    """Classify the tiles by the definition: 0, 1, 2 for empty, partial, full, [batch, owners, others].

    A tile that extends past the end of the *other* side is never full, since the part outside must be masked.
    """
    visible = mask.visible(q_len, k_len, DEVICE).cpu()
    owners, others = -(-q_len // block_q), -(-k_len // block_k)
    # Past the end no key is visible; queries there do not matter, because their results are discarded.
    some = torch.zeros(len(visible), owners * block_q, others * block_k, dtype=torch.bool)
    some[:, :q_len, :k_len] = visible
    every = some.clone()
    if owner == "queries":
        every[:, q_len:] = True
    else:
        every[:, :, k_len:] = True
    shape = (len(visible), owners, block_q, others, block_k)
    kinds = some.view(shape).any(4).any(2).int() * (1 + every.view(shape).all(4).all(2).int())
    return kinds if owner == "queries" else kinds.mT


def listed(blocks, row_of_batch: int, owner: int) -> tuple[list[int], list[int]]:
    row = row_of_batch * blocks.row_step
    indices = blocks.indices[row, owner].tolist()
    partial = int(blocks.partial[row, owner])
    return indices[: int(blocks.full[row, owner])], indices[::-1][:partial]


@pytest.mark.parametrize("owner", ["queries", "keys"])
@pytest.mark.parametrize("name", named_masks())
def test_lists_contain_exactly_the_blocks_with_visible_pairs(name, owner):
    mask, q_len, k_len = named_masks()[name]
    q_len, k_len = q_len * UNIT, k_len * UNIT
    block_q, block_k = 16 * UNIT, 8 * UNIT
    blocks = blocks_to_visit(mask, q_len, k_len, block_q, block_k, owner=owner)
    if blocks is None:
        assert not mask.tensors
        return
    kinds = tiles_of(mask, q_len, k_len, block_q, block_k, owner)
    for b in range(len(kinds)):
        for o in range(kinds.shape[1]):
            full, partial = listed(blocks, b, o)
            assert full == torch.nonzero(kinds[b, o] == 2).flatten().tolist()
            assert partial == torch.nonzero(kinds[b, o] == 1).flatten().tolist()


def test_the_drawing_of_tiles_in_the_readme():
    segment = packed_segments([36, 20, 24]).to(DEVICE)
    mask = Mask(causal=True, segment_q=segment, segment_k=segment)
    blocks = blocks_to_visit(mask, 80, 80, 8, 8, owner="queries")
    drawing = [["."] * 10 for _ in range(10)]
    for o, line in enumerate(drawing):
        for symbol, visited in zip("#/", listed(blocks, 0, o), strict=True):
            for block in visited:
                line[block] = symbol
    lines = "".join(f"    {' '.join(line)}\n" for line in drawing)
    assert lines in (Path(triton_forward.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_tiles_that_the_ranges_leave_in_doubt_are_decided_pair_by_pair():
    """With tokens in random order the smallest and largest integers decide nothing, and the lists are still exact."""
    torch.manual_seed(0)
    for causal, window in ((True, None), (False, 3), (True, 6)):
        numbers = lambda low, high: torch.randint(low, high, (1, 64), device=DEVICE)  # noqa: E731
        mask = Mask(
            causal,
            window,
            numbers(0, 64),
            numbers(0, 64),
            numbers(-1, 300),
            numbers(-1, 300),
            numbers(-1, 9),
            numbers(-1, 9),
        )
        for owner in ("queries", "keys"):
            blocks = blocks_to_visit(mask, 64, 64, 16, 16, owner=owner)
            kinds = tiles_of(mask, 64, 64, 16, 16, owner)
            assert {0, 1} <= set(kinds.flatten().tolist())
            for o in range(4):
                assert listed(blocks, 0, o)[1] == torch.nonzero(kinds[0, o]).flatten().tolist()


def test_integers_beyond_32_bits_count_as_very_far():
    """A position of 2⁶³ − 1 is visible to no causal query; its last 32 bits alone would be −1."""
    far = torch.iinfo(torch.int64).max
    position = torch.tensor([[0] * 16 + [far] * 16], device=DEVICE)
    mask = Mask(causal=True, window=100, position_k=position, position_q=torch.full((1, 16), 5, device=DEVICE))
    assert listed(blocks_to_visit(mask, 16, 32, 16, 16, owner="queries"), 0, 0) == ([0], [])


def test_lists_are_cached_until_a_tensor_of_the_mask_changes():
    segment = runs((20, 0), (12, 1))
    mask = Mask(segment_q=segment, segment_k=segment)
    lists = lambda **more: blocks_to_visit(mask, 32 * UNIT, 32 * UNIT, 16, 16, **({"owner": "queries"} | more))  # noqa: E731
    first = lists()
    assert lists() is first
    assert lists(owner="keys") is not first
    segment[:] = -1
    assert int(lists().partial.sum()) == int(lists().full.sum()) == 0
    with torch.inference_mode():
        inner = Mask(segment_q=segment.clone(), segment_k=segment)
        assert blocks_to_visit(inner, 32 * UNIT, 32 * UNIT, 16, 16, owner="queries") is not None


@triton.jit
def record_visits(kinds, length_owner, length, reach, others, BLOCK_OWNER: tl.constexpr, BLOCK: tl.constexpr):
    owner = tl.program_id(0)
    last = tl.minimum((owner + 1) * BLOCK_OWNER, length_owner) - 1
    plan = plan_visits(None, owner, owner, (owner * BLOCK_OWNER, last), reach, length, BLOCK)
    for number in range(plan.full):
        tl.atomic_add(kinds + owner * others + full_block(None, plan, number), 2)
    for number in range(plan.partial):
        tl.atomic_add(kinds + owner * others + partial_block(None, plan, number), 1)


@pytest.mark.parametrize("owner", ["queries", "keys"])
@pytest.mark.parametrize(
    "mask", [Mask(), Mask(causal=True), Mask(window=1), Mask(window=19), Mask(causal=True, window=37)]
)
def test_counted_tokens_need_no_lists(mask, owner):
    """The ranges from arithmetic visit each block once, as the definition says."""
    for q_len, k_len in ((50, 50), (64, 30), (17, 80), (100, 16)):
        reach = Reach.of(mask)
        directed = (reach.behind, reach.ahead) if owner == "queries" else (reach.ahead, reach.behind)
        length_owner, length = (q_len, k_len) if owner == "queries" else (k_len, q_len)
        kinds = tiles_of(mask, q_len, k_len, 16, 8, owner)[0]
        block, other = (16, 8) if owner == "queries" else (8, 16)
        visited = torch.zeros(kinds.shape, dtype=torch.int32, device=DEVICE)
        record_visits[(kinds.shape[0],)](
            visited, length_owner, length, directed, kinds.shape[1], BLOCK_OWNER=block, BLOCK=other
        )
        assert torch.equal(visited.cpu(), kinds), (q_len, k_len)


VISITED = {
    "window": (lambda: Mask(window=18 * UNIT), 50, 40),
    "causal": (lambda: Mask(causal=True), 40, 40),
    "packed": (lambda: Mask(causal=True, segment_q=_packed(), segment_k=_packed()), 40, 40),
    "cache": (lambda: Mask(causal=True, window=9 * UNIT, position_q=count(30, 20)), 20, 60),
}


def _packed():
    return runs((10, 0), (20, 1), (4, 2), (6, -1))


@pytest.mark.parametrize("name", VISITED)
def test_kernels_visit_exactly_the_tiles_with_visible_pairs(name):
    """NaN in one block spreads to every row that visits it, visible or not, so each visit leaves a trace.

    Row b of the batch has its b-th block poisoned. Visits are counted in the kernels themselves, not in their lists.
    """
    mask, q_len, k_len = VISITED[name][0](), VISITED[name][1] * UNIT, VISITED[name][2] * UNIT
    for kernel, owner in (("forward", "queries"), ("queries", "queries"), ("keys", "keys")):
        one = torch.randn(1, 1, 1, 16, device=DEVICE)
        tile = tiles(kernel, one, one)
        kinds = tiles_of(mask, q_len, k_len, tile.block_q, tile.block_k, owner)[0]
        others = kinds.shape[1]
        block, length = (tile.block_k, k_len) if owner == "queries" else (tile.block_q, q_len)
        q, grad = (torch.randn(others, 1, q_len, 16, device=DEVICE) for _ in range(2))
        k, v = (torch.randn(others, 1, k_len, 16, device=DEVICE) for _ in range(2))
        inputs = AttentionInputs(q, k, v, mask, 0.3)
        out, lse = triton_forward.forward(inputs)
        poisoned = v if owner == "queries" else grad
        for b in range(others):
            poisoned[b, :, b * block : min((b + 1) * block, length)] = torch.nan
        if kernel == "forward":
            result, _ = triton_forward.forward(inputs)
        else:
            grads = triton_backward.backward(inputs, OutputGradient(out, lse, grad))
            result = grads[0] if kernel == "queries" else grads[2]
        owning = tile.block_q if owner == "queries" else tile.block_k
        visited = torch.stack([rows.isnan().all(-1).any(-1)[:, 0] for rows in result.split(owning, 2)])
        assert torch.equal(visited.cpu(), kinds > 0), kernel
        assert int(visited.sum()) == int((kinds > 0).sum())
