"""The mask algebra, drawn: every pattern of the course as a table that is easy to check."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.attention import Mask, packed_segments, padded_segments


def _row(*numbers: int) -> torch.Tensor:
    return torch.tensor([numbers])


def _drawn(mask: Mask, q_len: int, k_len: int) -> list[str]:
    """Rows are queries, columns keys; # is visible."""
    visible = mask.visible(q_len, k_len)
    assert visible.shape[0] == 1
    return ["".join("#" if pair else "." for pair in row) for row in visible[0].tolist()]


def test_everything_is_visible_by_default():
    assert _drawn(Mask(), 2, 3) == ["###", "###"]


def test_causal_is_aligned_with_the_first_key():
    assert _drawn(Mask(causal=True), 3, 4) == ["#...", "##..", "###."]


def test_decoding_at_the_end_of_a_cache():
    """Two new tokens behind three old ones."""
    assert _drawn(Mask(causal=True, position_q=_row(3, 4)), 2, 5) == ["####.", "#####"]


def test_window_reaches_both_ways_and_with_causal_only_backwards():
    assert _drawn(Mask(window=2), 4, 4) == ["##..", "###.", ".###", "..##"]
    assert _drawn(Mask(causal=True, window=2), 4, 4) == ["#...", "##..", ".##.", "..##"]
    assert _drawn(Mask(window=1), 3, 3) == ["#..", ".#.", "..#"]


def test_another_window_leaves_the_rest_of_a_mask_as_it_is():
    spans = _row(0, 0, -1, -1)
    mask = Mask(True, None, _row(2, 3, 4, 5), _row(1, 3, 4, 5), _row(0, 0, 0, 1), _row(0, 0, 0, 1), spans, spans)
    assert _drawn(mask.with_window(2), 4, 4) == _drawn(Mask(True, 2, **mask.tensors), 4, 4) != _drawn(mask, 4, 4)
    assert mask.with_window(None).tensors == mask.tensors


def test_packed_segments_attend_to_themselves_and_padding_to_nothing():
    segments = packed_segments([2, 3], total=6)
    assert _drawn(Mask(segment_q=segments, segment_k=segments), 6, 6) == [
        "##....",
        "##....",
        "..###.",
        "..###.",
        "..###.",
        "......",
    ]
    assert _drawn(Mask(causal=True, segment_q=segments, segment_k=segments), 6, 6) == [
        "#.....",
        "##....",
        "..#...",
        "..##..",
        "..###.",
        "......",
    ]


def test_prefix_lm_is_a_span_over_the_prefix():
    spans = _row(0, 0, 0, -1, -1)
    assert _drawn(Mask(causal=True, span_q=spans, span_k=spans), 5, 5) == ["###..", "###..", "###..", "####.", "#####"]


def test_image_spans_among_text():
    """Transfusion: text is causal; each image attends to itself in both directions and to what came before."""
    spans = _row(-1, 0, 0, -1, 1, 1)
    assert _drawn(Mask(causal=True, span_q=spans, span_k=spans), 6, 6) == [
        "#.....",
        "###...",
        "###...",
        "####..",
        "######",
        "######",
    ]


def test_the_three_masks_of_the_q_former():
    """Two learned queries, then three text tokens."""
    contrastive = _row(0, 0, 1, 1, 1)
    assert _drawn(Mask(segment_q=contrastive, segment_k=contrastive), 5, 5) == [
        "##...",
        "##...",
        "..###",
        "..###",
        "..###",
    ]
    assert _drawn(Mask(), 5, 5) == ["#####"] * 5  # matching
    generating = _row(0, 0, -1, -1, -1)
    assert _drawn(Mask(causal=True, span_q=generating, span_k=generating), 5, 5) == [
        "##...",
        "##...",
        "###..",
        "####.",
        "#####",
    ]


def test_flamingos_text_attends_to_its_latest_image():
    """Text: one token before any image, two after image 0, one after image 1; two latents per image."""
    mask = Mask(segment_q=_row(-1, 0, 0, 1), segment_k=_row(0, 0, 1, 1))
    assert _drawn(mask, 4, 4) == ["....", "##..", "##..", "..##"]


def test_ragged_batch():
    segments = padded_segments([3, 1])
    assert segments.tolist() == [[0, 0, 0], [0, -1, -1]]
    visible = Mask(segment_k=segments).visible(2, 3)
    assert visible.int().tolist() == [[[1, 1, 1]] * 2, [[1, 0, 0]] * 2]


def test_positions_define_a_block_of_ring_attention():
    """Queries 4…7 against keys 2…5 of one causal sequence."""
    mask = Mask(causal=True, position_q=_row(4, 5, 6, 7), position_k=_row(2, 3, 4, 5))
    assert _drawn(mask, 4, 4) == ["###.", "####", "####", "####"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_visible_is_the_rule_pair_by_pair(data):
    q_len, k_len = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    draw = lambda low, length: data.draw(st.lists(st.integers(low, 3), min_size=length, max_size=length))  # noqa: E731
    position_q, position_k = draw(0, q_len), draw(0, k_len)
    segment_q, segment_k, span_q, span_k = draw(-1, q_len), draw(-1, k_len), draw(-1, q_len), draw(-1, k_len)
    causal, window = data.draw(st.booleans()), data.draw(st.sampled_from([None, 1, 2, 3]))
    rows = (position_q, position_k, segment_q, segment_k, span_q, span_k)
    visible = Mask(causal, window, *(_row(*row) for row in rows)).visible(q_len, k_len)
    for i in range(q_len):
        for j in range(k_len):
            expected = segment_q[i] == segment_k[j] and segment_k[j] >= 0
            if causal and position_k[j] > position_q[i] and not (span_q[i] == span_k[j] and span_q[i] >= 0):
                expected = False
            if window is not None and abs(position_q[i] - position_k[j]) >= window:
                expected = False
            assert visible[0, i, j].item() == expected


def test_lengths_become_segments():
    assert packed_segments([3, 2]).tolist() == [[0, 0, 0, 1, 1]]
    with pytest.raises(ValueError, match=r"add up to 5, more than the total of 4"):
        packed_segments([3, 2], total=4)
    with pytest.raises(ValueError, match=r"a row of 3 tokens does not fit into 2"):
        padded_segments([3, 1], longest=2)
