"""The exercises, each reached through `student` alone: tensors and numbers in, tensors out."""

import math

import pytest
import torch


def close(result, expected, tolerance=1e-6):
    torch.testing.assert_close(result.double(), expected.double(), atol=tolerance, rtol=0)


# ── 9.1: a size within a token budget ─────────────────────────────────────────────────────────────────────────────────

SIZES = "model.sampling:resized_sizes"


@pytest.mark.exercise("9.1")
@pytest.mark.parametrize(
    ("height", "width", "factor", "limits", "expected"),
    [
        (480, 640, 28, (3136, 10**7), (476, 644)),
        (100, 99, 10, (1, 10**7), (100, 100)),
        (15, 25, 10, (1, 10**7), (20, 20)),  # halves are rounded to even numbers
        (1000, 500, 10, (1, 125_000), (500, 250)),
        (1000, 500, 10, (1, 124_999), (490, 240)),
        (1000, 500, 10, (1, 500_000), (1000, 500)),
        (1004, 504, 10, (1, 499_999), (990, 500)),
        (100, 50, 10, (20_000, 10**6), (200, 100)),
        (100, 50, 10, (20_001, 10**6), (210, 110)),
        (100, 50, 10, (5000, 10**6), (100, 50)),
        (104, 48, 10, (5000, 10**6), (100, 50)),  # the rounded size is exactly the least
        (5, 900, 10, (1, 5000), (10, 20)),  # as published: the short side is rounded to 0
        (900, 6, 10, (1, 4000), (770, 10)),
        (6, 900, 10, (10_000, 10**6), (10, 1230)),
        (3, 3, 28, (3136, 10**6), (56, 56)),
    ],
)
def test_sizes_are_multiples_within_the_limits(student, height, width, factor, limits, expected):
    arguments = {"factor": factor, "min_pixels": limits[0], "max_pixels": limits[1]}
    result = student(SIZES, sizes=torch.tensor([[height, width]]), **arguments)
    assert tuple(result[0].tolist()) == expected


@pytest.mark.exercise("9.1")
def test_a_long_side_keeps_at_least_one_token(student):
    result = student(SIZES, sizes=torch.tensor([[1900, 10], [10, 1900]]), factor=10, min_pixels=1, max_pixels=400)
    assert result.tolist() == [[270, 10], [10, 270]]


@pytest.mark.exercise("9.1")
def test_all_frames_of_a_video_share_its_limits(student):
    sizes = torch.tensor([[100, 50]])
    for frames, limits, expected in (
        (9, (1, 40_000), [100, 50]),  # 9 frames count as 8, which are within the limit
        (11, (1, 40_000), [80, 40]),  # 11 frames count as 12, and the scale is √(11 · 5000 / 40,000)
        (10, (200_000, 10**7), [200, 100]),
    ):
        arguments = {"factor": 10, "min_pixels": limits[0], "max_pixels": limits[1], "frames": frames}
        assert student(SIZES, sizes=sizes, **arguments)[0].tolist() == expected


@pytest.mark.exercise("9.1")
@pytest.mark.parametrize(("least", "most"), [(1, 10**7), (1, 90_000), (900_000, 10**7)])
def test_random_sizes_follow_the_limits(student, least, most):
    sizes = torch.randint(310, 900, (6, 2))
    result = student(SIZES, sizes=sizes, factor=10, min_pixels=least, max_pixels=most)
    for (height, width), resized in zip(sizes.tolist(), result.tolist(), strict=True):
        pixels, area = height * width, math.prod(resized)
        assert least <= area <= most and all(side % 10 == 0 for side in resized)
        for before, after in zip((height, width), resized, strict=True):
            if most == 90_000:  # the largest multiples below the sides of an image with that area
                assert 0 <= before * math.sqrt(most / pixels) - after < 10
            elif least == 1 or pixels > 1.1 * least:
                assert abs(before - after) <= 5
            elif pixels < 0.9 * least:
                assert 0 <= after - before * math.sqrt(least / pixels) < 10


# ── 9.2: dynamic frames per second ────────────────────────────────────────────────────────────────────────────────────

INDICES = "model.sampling:sampled_indices"


@pytest.mark.exercise("9.2")
@pytest.mark.parametrize(
    ("total", "video_fps", "fps", "limits", "frames"),
    [
        (300, 30.0, 2.0, (4, 768), 20),
        (300, 30.0, 1.0, (4, 768), 10),
        (330, 30.0, 1.0, (4, 768), 10),  # 11 frames do not fill whole patches of two
        (299, 30.0, 2.0, (4, 768), 18),
        (30, 30.0, 2.0, (4, 768), 4),
        (30, 30.0, 2.0, (5, 768), 6),
        (9000, 30.0, 2.0, (4, 100), 100),
        (9000, 30.0, 2.0, (4, 101), 100),
        (7, 30.0, 2.0, (20, 768), 6),
        (7, 1.0, 2.0, (4, 768), 6),
        (3, 25.0, 2.0, (4, 768), 2),
        (8, 8.0, 8.0, (4, 768), 8),
    ],
)
def test_the_number_of_frames_follows_the_duration(student, total, video_fps, fps, limits, frames):
    arguments = {"total_frames": total, "video_fps": video_fps, "fps": fps}
    result = student(INDICES, **arguments, min_frames=limits[0], max_frames=limits[1])
    expected = [round(index * (total - 1) / (frames - 1)) for index in range(frames)]
    assert len(result) == frames and result[0] == 0 and result[-1] == total - 1
    assert (result - torch.tensor(expected)).abs().max() <= 1


@pytest.mark.exercise("9.2")
def test_random_videos(student):
    for _ in range(6):
        total, video_fps = int(torch.randint(60, 900, ())), int(torch.randint(8, 60, ()))
        arguments = {"total_frames": total, "video_fps": float(video_fps), "fps": 2.0}
        indices = student(INDICES, **arguments, min_frames=4, max_frames=40)
        count = len(indices)
        assert count % 2 == 0 and 4 <= count <= 40
        # One pair of frames more would exceed the duration times the rate, and fewer would not reach it.
        requested = 2 * total / video_fps
        assert count <= requested < count + 2 or (count == 4 and requested < 4) or (count == 40 and requested >= 40)
        gaps = indices.diff()
        assert indices[0] == 0 and indices[-1] == total - 1 and gaps.max() - gaps.min() <= 1


# ── 9.3: the ids of a grid ────────────────────────────────────────────────────────────────────────────────────────────

IDS = "model.positions:visual_ids"


@pytest.mark.exercise("9.3")
@pytest.mark.parametrize("step", [1.0, 0.4, 2.5, 0.0])
def test_ids_count_frames_rows_and_columns(student, step):
    expected = [[math.floor(f * step), r, c] for f in range(4) for r in range(2) for c in range(3)]
    result = student(IDS, frames=4, rows=2, columns=3, time_step=step)
    assert result.dtype == torch.long and result.tolist() == expected


@pytest.mark.exercise("9.3")
def test_a_still_image_has_one_time_id(student):
    result = student(IDS, frames=1, rows=2, columns=2)
    assert result.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]


@pytest.mark.exercise("9.3")
def test_ids_of_a_random_grid(student):
    frames, rows, columns = torch.randint(2, 7, (3,)).tolist()
    step = int(torch.randint(1, 30, ())) / 8
    result = student(IDS, frames=frames, rows=rows, columns=columns, time_step=step).tolist()
    assert len(result) == frames * rows * columns
    for place, (time, row, column) in enumerate(result):
        frame, inside = divmod(place, rows * columns)
        assert time == int(frame * step) and (row, column) == divmod(inside, columns)


# ── 9.4: the axis of each pair ────────────────────────────────────────────────────────────────────────────────────────

AXES = "model.positions:pair_axes"


@pytest.mark.exercise("9.4")
def test_sections_follow_each_other(student):
    assert student(AXES, sections=[3, 1, 2], interleaved=False).tolist() == [0, 0, 0, 1, 2, 2]
    result = student(AXES, sections=[16, 24, 24], interleaved=False)
    assert result.dtype == torch.long and result.bincount().tolist() == [16, 24, 24]


@pytest.mark.exercise("9.4")
def test_sections_alternate_and_time_has_the_rest(student):
    assert student(AXES, sections=[4, 2, 2], interleaved=True).tolist() == [0, 1, 2, 0, 1, 2, 0, 0]
    assert student(AXES, sections=[3, 1, 2], interleaved=True).tolist() == [0, 1, 2, 0, 0, 2]
    assert student(AXES, sections=[4, 1, 0], interleaved=True).tolist() == [0, 1, 0, 0, 0]
    result = student(AXES, sections=[24, 20, 20], interleaved=True)
    assert result.dtype == torch.long and result.bincount().tolist() == [24, 20, 20]
    assert result[:60].tolist() == [0, 1, 2] * 20


@pytest.mark.exercise("9.4")
def test_the_axes_of_random_sections(student):
    size, more = int(torch.randint(1, 9, ())), int(torch.randint(0, 9, ()))
    sections = [size + 1 + more, size - int(torch.randint(0, 2, ())), size]
    in_turn = student(AXES, sections=sections, interleaved=False).tolist()
    assert in_turn == [axis for axis in range(3) for _ in range(sections[axis])]
    interleaved = student(AXES, sections=sections, interleaved=True)
    assert (interleaved == 1).nonzero().flatten().tolist() == [1 + 3 * place for place in range(sections[1])]
    assert (interleaved == 2).nonzero().flatten().tolist() == [2 + 3 * place for place in range(sections[2])]
    assert len(interleaved) == sum(sections)


# ── 9.5: angles from three ids ────────────────────────────────────────────────────────────────────────────────────────

ANGLES = "model.positions:mrope_angles"


@pytest.mark.exercise("9.5")
def test_each_pair_has_the_angle_of_its_axis(student):
    ids = torch.tensor([[[5, 1, 2], [7, 0, 3]], [[1, 1, 1], [0, 4, 9]]])
    frequencies, axes = torch.tensor([1.0, 0.5, 0.25, 0.125]), torch.tensor([0, 2, 1, 0])
    result = student(ANGLES, ids=ids, frequencies=frequencies, axes=axes)
    assert result.shape == (2, 2, 4)
    for row, token, pair in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(4)).tolist():
        assert result[row, token, pair] == ids[row, token, axes[pair]] * frequencies[pair]


@pytest.mark.exercise("9.5")
def test_angles_have_the_precision_of_the_frequencies(student):
    ids, axes = torch.tensor([[[3, 4, 5]]]), torch.tensor([0, 1])
    for dtype in (torch.float32, torch.float64):
        result = student(ANGLES, ids=ids, frequencies=torch.tensor([0.1, 0.01], dtype=dtype), axes=axes)
        assert result.dtype == dtype


@pytest.mark.exercise("9.5")
def test_frequencies_get_a_gradient(student):
    ids, axes, upstream = torch.tensor([[[3, 4, 5]]]), torch.tensor([0, 2]), torch.tensor([[[2.0, -1.0]]])
    frequencies = torch.tensor([0.5, 0.1])
    _, gradients = student(ANGLES, ids=ids, frequencies=frequencies, axes=axes, upstream=upstream)
    close(gradients["frequencies"], torch.tensor([6.0, -5.0]))


@pytest.mark.exercise("9.5")
def test_the_angles_of_random_ids(student):
    ids, frequencies, axes = torch.randint(0, 20, (2, 3, 3)), torch.rand(5), torch.randint(0, 3, (5,))
    result = student(ANGLES, ids=ids, frequencies=frequencies, axes=axes)
    for pair, (frequency, axis) in enumerate(zip(frequencies.tolist(), axes.tolist(), strict=True)):
        close(result[:, :, pair], ids[:, :, axis] * frequency, 1e-5)


# ── 9.6 and 9.7: windows ──────────────────────────────────────────────────────────────────────────────────────────────

WINDOWS = "model.window_attention:grid_windows"


@pytest.mark.exercise("9.6")
@pytest.mark.parametrize(
    ("frames", "rows", "columns", "side"), [(1, 4, 6, 2), (2, 3, 5, 2), (3, 1, 7, 3), (1, 2, 2, 4), (2, 4, 2, 4)]
)
def test_windows_are_squares_of_one_frame(student, frames, rows, columns, side):
    places = [(f, r // side, c // side) for f in range(frames) for r in range(rows) for c in range(columns)]
    numbers = {place: number for number, place in enumerate(sorted(set(places)))}
    result = student(WINDOWS, frames=frames, rows=rows, columns=columns, side=side)
    assert result.tolist() == [numbers[place] for place in places]


@pytest.mark.exercise("9.7")
def test_the_order_joins_windows_and_its_inverse_restores_the_tokens(student):
    windows = torch.tensor([0, 0, 1, 1, 2, 0, 0, 1, 1, 2] * 3)
    order, inverse = student("model.window_attention:window_order", windows=windows)
    assert windows[order].tolist() == sorted(windows.tolist())
    assert order.tolist() == sorted(range(30), key=lambda token: (int(windows[token]), token))
    tokens = torch.randn(30, 2)
    assert torch.equal(tokens[order][inverse], tokens)


@pytest.mark.exercise("9.6")
def test_the_windows_of_a_random_grid(student):
    frames, rows, columns, side = torch.randint(2, 7, (4,)).tolist()
    result = student(WINDOWS, frames=frames, rows=rows, columns=columns, side=side).reshape(frames, rows, columns)
    number = 0
    for frame in result:
        for band in frame.split(side):
            for window in band.split(side, dim=1):
                assert (window == number).all()
                number += 1


@pytest.mark.exercise("9.7")
def test_the_order_of_random_windows(student):
    windows = torch.randint(0, 6, (40,))
    order, inverse = student("model.window_attention:window_order", windows=windows)
    expected = [token for window in range(6) for token in range(40) if windows[token] == window]
    assert order.tolist() == expected and order[inverse].tolist() == list(range(40))


# ── 9.8: merge patches ────────────────────────────────────────────────────────────────────────────────────────────────

MERGE = "model.merger:concatenate_patches"


@pytest.mark.exercise("9.8")
@pytest.mark.parametrize("size", [1, 4, 9])
def test_each_token_has_the_vectors_of_its_patches(student, size):
    patches, upstream = torch.randn(3 * size, 5), torch.randn(3, 5 * size)
    result, gradients = student(MERGE, patches=patches, patches_per_token=size, upstream=upstream)
    close(result, torch.stack([torch.cat(list(patches[size * t : size * (t + 1)])) for t in range(3)]))
    close(gradients["patches"], upstream.reshape(3 * size, 5))


# ── 9.9: DeepStack ────────────────────────────────────────────────────────────────────────────────────────────────────

DEEPSTACK = "model.deepstack:add_features"


@pytest.mark.exercise("9.9")
def test_the_first_layers_get_their_features_and_the_others_none(student):
    states, features, upstream = torch.randn(2, 3, 4), torch.randn(2, 2, 3, 4), torch.randn(2, 3, 4)
    for layer in range(4):
        arguments = {"hidden_states": states, "features": features, "layer": layer}
        result, gradients = student(DEEPSTACK, **arguments, upstream=upstream)
        close(result, states + features[layer] if layer < 2 else states)
        close(gradients["hidden_states"], upstream)
        expected = torch.zeros_like(features)
        if layer < 2:
            expected[layer] = upstream
        close(gradients["features"], expected)


@pytest.mark.exercise("9.9")
def test_states_stay_in_their_precision(student):
    states, features = torch.ones(1, 2, 3, dtype=torch.bfloat16), torch.ones(1, 1, 2, 3)
    assert student(DEEPSTACK, hidden_states=states, features=features, layer=0).dtype == torch.bfloat16


# ── 9.10: units of boxes ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.exercise("9.10")
def test_boxes_change_their_units(student):
    boxes = torch.tensor([[100.0, 20.0, 300.0, 40.0], [0.0, 0.0, 1000.0, 500.0]])
    result = student("model.grounding:scale_boxes", boxes=boxes, from_units=(500, 1000), to_units=(50, 4000))
    close(result, torch.tensor([[400.0, 2.0, 1200.0, 4.0], [0.0, 0.0, 4000.0, 50.0]]), 1e-3)


@pytest.mark.exercise("9.10")
def test_random_boxes_and_units(student):
    boxes, units = torch.rand(5, 4) * 100, tuple(torch.randint(50, 2000, (4,)).tolist())
    result = student("model.grounding:scale_boxes", boxes=boxes, from_units=units[:2], to_units=units[2:])
    old, new = (torch.tensor([width, height] * 2) for height, width in (units[:2], units[2:]))
    close(result / new, boxes / old, 1e-5)


# ── 9.11: repair a box ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.exercise("9.11")
@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ("1, 2, 3, 4", [[1, 2, 3, 4]]),
        ("3, 4, 1, 2", [[1, 2, 3, 4]]),
        ("3, 2, 1, 4", [[1, 2, 3, 4]]),
        ("1, 4, 3, 2", [[1, 2, 3, 4]]),
        ("-5, -6, 300, 400", [[0, 0, 200, 100]]),
        ("150, 80, 250, 90.5", [[150, 80, 200, 90.5]]),
        ("250, 10, 150, -20", [[150, 0, 200, 10]]),
        ("5, 5, 5, 9", []),
        ("5, 9, 8, 9", []),
        ("250, 10, 300, 20", []),  # beyond the right border
        ("10, 150, 20, 190", []),
        ("-9, 1, -3, 5", []),
        ("1, 2, 1e999, 4", []),
        ("1, -1e999, 3, 4", []),
    ],
)
def test_boxes_are_ordered_and_lie_in_the_image(student, corners, expected):
    text = '[{"bbox_2d": [' + corners + '], "label": "a"}]'
    result = student("model.grounding:parsed_corners", text=text, units=(100, 200))
    close(result, torch.tensor(expected, dtype=torch.float64).reshape(-1, 4))


@pytest.mark.exercise("9.11")
def test_random_corners(student):
    for left, top, right, bottom in torch.randint(-80, 300, (12, 4)).tolist():
        text = f'[{{"bbox_2d": [{left}, {top}, {right}, {bottom}], "label": "a"}}]'
        result = student("model.grounding:parsed_corners", text=text, units=(100, 200))
        columns = [x for x in range(200) if min(left, right) <= x < max(left, right)]
        rows = [y for y in range(100) if min(top, bottom) <= y < max(top, bottom)]
        expected = [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]] if columns and rows else []
        assert result.tolist() == expected


# ── 9.12: intersection over union ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.exercise("9.12")
def test_overlaps_of_known_boxes(student):
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0], [1.0, 1.0, 1.0, 5.0]])
    others = torch.tensor(
        [
            [0.0, 0.0, 4.0, 2.0],
            [2.0, 1.0, 6.0, 3.0],
            [4.0, 0.0, 8.0, 2.0],
            [5.0, 5.0, 9.0, 9.0],
            [1.0, 0.0, 2.0, 1.0],
            [7.0, 7.0, 7.0, 7.0],
            [9.0, 9.0, 0.0, 0.0],
        ]
    )
    result = student("model.grounding:iou", boxes=boxes, others=others)
    expected = torch.zeros(2, 7)
    expected[0] = torch.tensor([1, 2 / 14, 0, 0, 1 / 8, 0, 0])
    close(result, expected)


@pytest.mark.exercise("9.12")
def test_overlaps_are_symmetric(student):
    corner, size = torch.rand(6, 2), torch.rand(6, 2)
    boxes = torch.cat([corner, corner + size], dim=1).double()
    result = student("model.grounding:iou", boxes=boxes[:4], others=boxes)
    reverse = student("model.grounding:iou", boxes=boxes, others=boxes[:4])
    close(result, reverse.T, 1e-12)
    close(result[:, :4].diagonal(), torch.ones(4), 1e-12)
    assert result.dtype == torch.float64 and result.min() >= 0 and result.max() <= 1 + 1e-12


@pytest.mark.exercise("9.12")
def test_overlaps_get_a_gradient(student):
    boxes, others = torch.tensor([[0.0, 0.0, 4.0, 2.0]]).double(), torch.tensor([[2.0, 0.0, 6.0, 2.0]]).double()
    _, gradients = student("model.grounding:iou", boxes=boxes, others=others, upstream=torch.ones(1, 1).double())
    # Moving the right side: the intersection grows by 2 per unit, and the union of 12 stays.
    close(gradients["boxes"][0, 2], torch.tensor(2 / 12))


# ── 9.13: rotate by three ids ─────────────────────────────────────────────────────────────────────────────────────────

ROTATE = "reference:rotate"


def rotated(student, x, ids, sections, base=100.0, **options):
    return student(ROTATE, x=x, ids=ids, sections=sections, base=base, **options)


def expected_rotation(x, ids, sections, base=100.0, sign=1.0):
    pairs = x.shape[-1] // 2
    axes = [axis for axis, count in enumerate(sections) for _ in range(count)]
    result = torch.empty_like(x)
    for token, each in enumerate(ids):
        for pair in range(pairs):
            angle = sign * each[axes[pair]] * base ** (-pair / pairs)
            first, second = x[:, :, token, pair], x[:, :, token, pair + pairs]
            result[:, :, token, pair] = first * math.cos(angle) - second * math.sin(angle)
            result[:, :, token, pair + pairs] = second * math.cos(angle) + first * math.sin(angle)
    return result


TOKEN_IDS = [(1, 5, 2), (0, 0, 0), (7, 1, 3)]


@pytest.mark.exercise("9.13")
@pytest.mark.parametrize("sections", [(1, 1, 1), (2, 0, 1), (0, 3, 0)])
def test_each_pair_is_rotated_by_the_id_of_its_axis(student, sections):
    x, upstream = torch.randn(2, 2, 3, 6), torch.randn(2, 2, 3, 6)
    result, gradients = rotated(student, x, TOKEN_IDS, sections, upstream=upstream)
    close(result, expected_rotation(x.double(), TOKEN_IDS, sections))
    close(gradients["x"], expected_rotation(upstream.double(), TOKEN_IDS, sections, sign=-1.0))


@pytest.mark.exercise("9.13")
def test_scores_depend_on_offsets_only(student):
    x = torch.randn(1, 1, 3, 8)
    moved = [tuple(value + 4 for value in each) for each in TOKEN_IDS]
    one, other = (rotated(student, x, ids, (2, 1, 1)) for ids in (TOKEN_IDS, moved))
    close(one @ one.transpose(2, 3), other @ other.transpose(2, 3))


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(IDS, {"frames": 1, "rows": 1, "columns": 1}, [(1, 3)], marks=pytest.mark.exercise("9.3")),
    pytest.param(AXES, {"sections": [1, 0, 0], "interleaved": False}, [(1,)], marks=pytest.mark.exercise("9.4")),
    pytest.param(AXES, {"sections": [1, 0, 0], "interleaved": True}, [(1,)], marks=pytest.mark.exercise("9.4")),
    pytest.param(WINDOWS, {"frames": 1, "rows": 1, "columns": 1, "side": 2}, [(1,)], marks=pytest.mark.exercise("9.6")),
    pytest.param(
        "model.window_attention:window_order",
        {"windows": torch.tensor([0])},
        [(1,), (1,)],
        marks=pytest.mark.exercise("9.7"),
    ),
    pytest.param(
        MERGE, {"patches": torch.ones(2, 1), "patches_per_token": 2}, [(1, 2)], marks=pytest.mark.exercise("9.8")
    ),
    pytest.param(
        DEEPSTACK,
        {"hidden_states": torch.ones(1, 2, 3), "features": torch.ones(1, 1, 2, 3), "layer": 1},
        [(1, 2, 3)],
        marks=pytest.mark.exercise("9.9"),
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
