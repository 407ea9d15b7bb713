"""The exercises. Each is reached through `student` alone: numbers in, numbers out. A mistake breaks one of them."""

import math

import pytest
import torch
from torch.nn import functional as F

IMAGE, USER, ASSISTANT, END = range(4)  # the reference's own


def close(result, expected, tolerance=1e-5):
    torch.testing.assert_close(result.double(), expected.double(), atol=tolerance, rtol=0)


# ── 5.1: the loss mask ─────────────────────────────────────────────────────────────────────────────────

ANSWER_LOSS = "reference:sft_loss"
ROWS = [
    [USER, IMAGE, IMAGE, 4, ASSISTANT, 17, END, USER, 5, ASSISTANT, 9, END],
    [USER, IMAGE, IMAGE, 5, ASSISTANT, 8, 8, 9, END, USER, 6, ASSISTANT],
]
OWN = [[5, 6, 10, 11], [5, 6, 7, 8]]


@pytest.mark.exercise("5.1")
def test_the_loss_is_the_mean_cross_entropy_of_answers_and_their_ends(student):
    logits = torch.randn(2, 12, 20)
    chances = logits.double().log_softmax(-1)
    losses = [-chances[row, t - 1, ROWS[row][t]].item() for row in range(2) for t in OWN[row]]
    assert student(ANSWER_LOSS, logits=logits, rows=ROWS).item() == pytest.approx(sum(losses) / 8, rel=1e-6)


@pytest.mark.exercise("5.1")
def test_questions_images_and_headers_are_read_and_not_learned(student):
    logits = torch.randn(2, 12, 20)
    _, gradients = student(ANSWER_LOSS, upstream=torch.tensor(1.0), logits=logits, rows=ROWS)
    expected = torch.zeros(2, 12, 20, dtype=torch.float64)
    for row in range(2):
        for t in OWN[row]:
            truth = F.one_hot(torch.tensor(ROWS[row][t]), 20)
            expected[row, t - 1] = (logits[row, t - 1].double().softmax(-1) - truth) / 8
    close(gradients["logits"], expected)


# ── 5.2 and 5.4: image embeddings at the image positions ──────────────────────────────────────────────────────────────

TOKENS = [[USER, IMAGE, IMAGE, 4], [IMAGE, 7, IMAGE, IMAGE]]


def put_by_reference(student, **arguments):
    """The reference takes all rows one behind the other."""
    text = arguments.pop("text")
    flat = [token for row in TOKENS for token in row]
    result = student("reference:splice_images", tokens=flat, text=text.flatten(0, 1), **arguments)
    if not isinstance(result, tuple):
        return result.reshape(text.shape)
    gradients = {"text": result[1]["text"].reshape(text.shape), "images": result[1]["images"]}
    return result[0].reshape(text.shape), gradients


def put_by_model(student, **arguments):
    return student("model.llava:splice_images", is_image=torch.tensor(TOKENS) == IMAGE, **arguments)


PUT = [
    pytest.param(put_by_reference, marks=pytest.mark.exercise("5.2")),
    pytest.param(put_by_model, marks=pytest.mark.exercise("5.4")),
]


@pytest.mark.parametrize("put", PUT)
def test_image_vectors_stand_in_reading_order(student, put):
    text, images = torch.randn(2, 4, 3), torch.randn(5, 3)
    result = put(student, text=text, images=images)
    expected = text.clone()
    for vector, (row, place) in zip(images, [(0, 1), (0, 2), (1, 0), (1, 2), (1, 3)], strict=True):
        expected[row, place] = vector
    close(result, expected)


@pytest.mark.parametrize("put", PUT)
def test_words_and_images_each_get_their_own_gradient(student, put):
    text, images = torch.randn(2, 4, 3), torch.randn(5, 3)
    upstream = torch.randn(8, 3) if put is put_by_reference else torch.randn(2, 4, 3)
    _, gradients = put(student, upstream=upstream, text=text, images=images)
    gradient = upstream.reshape(2, 4, 3)
    is_image = torch.tensor(TOKENS) == IMAGE
    close(gradients["images"], gradient[is_image])
    close(gradients["text"], gradient * ~is_image[..., None])


@pytest.mark.exercise("5.4")
@pytest.mark.parametrize(("text_dtype", "image_dtype"), [(torch.bfloat16, torch.float32), (torch.float32, torch.half)])
def test_the_sequence_has_the_precision_of_the_text(student, text_dtype, image_dtype):
    text, images = torch.randn(2, 4, 3).to(text_dtype), torch.randn(5, 3).to(image_dtype)
    result = put_by_model(student, text=text, images=images)
    assert result.dtype == text_dtype
    assert torch.equal(result[1, 0], images[2].to(text_dtype))


# ── 5.3: features from before the last block ──────────────────────────────────────────────────────────────────────────

FEATURES = "model.llava:select_features"


@pytest.mark.exercise("5.3")
@pytest.mark.parametrize("leading", [0, 1, 3])
@pytest.mark.parametrize("layer", [-2, -1, 0, 1])
def test_one_state_is_taken_and_what_leads_is_left_out(student, layer, leading):
    states = [torch.randn(2, 7, 5) for _ in range(4)]
    close(student(FEATURES, hidden_states=states, layers=[layer], prefix_tokens=leading), states[layer][:, leading:])


@pytest.mark.exercise("5.3")
def test_several_states_lie_side_by_side_in_the_order_that_is_asked(student):
    states = [torch.randn(2, 7, 5) for _ in range(4)]
    for layers in ([-2, 0], [2, 0], [3, 1, 2]):
        result = student(FEATURES, hidden_states=states, layers=layers, prefix_tokens=1)
        assert result.shape == (2, 6, 5 * len(layers))
        for part, layer in zip(result.split(5, dim=-1), layers, strict=True):
            close(part, states[layer][:, 1:])


# ── 5.5: the loss mask ───────────────────────────────────────────────────────────────────────

LEARNED = "model.conversations:loss_mask"


def sequence():
    return {
        "token_ids": torch.tensor([[1, 9, 9, 4, 5, 6], [1, 9, 9, 9, 5, 9]]),
        "answer_mask": torch.tensor([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]]).bool(),
        "segments": torch.tensor([[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, -1]]),
        "image_token_id": 9,
    }


@pytest.mark.exercise("5.5")
def test_answers_are_learned(student):
    assert student(LEARNED, **sequence()).int().tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 0]]


@pytest.mark.exercise("5.5")
def test_with_prompts_all_words_are_and_still_no_image_nor_padding(student):
    result = student(LEARNED, **sequence(), prompts=True)
    assert result.int().tolist() == [[1, 0, 0, 1, 1, 1], [1, 0, 0, 0, 1, 0]]


@pytest.mark.exercise("5.5")
def test_padding_is_never_learned_whatever_else_is_said_of_it(student):
    """Some fill up with a word, or with the end of a turn, and mark it as an answer by mistake."""
    padded = sequence() | {"token_ids": torch.tensor([[1, 9, 9, 4, 5, 6], [1, 9, 9, 9, 5, 6]])}
    for prompts in (False, True):
        assert not student(LEARNED, **padded, prompts=prompts)[1, 5]


@pytest.mark.exercise("5.5")
@pytest.mark.parametrize("prompts", [False, True])
def test_each_token_of_random_conversations(student, prompts):
    token_ids, answers = torch.randint(0, 5, (4, 9)), torch.rand(4, 9) < 0.5
    lengths = torch.randint(1, 10, (4,))
    segments = torch.zeros(4, 9, dtype=torch.long)
    for row, length in zip(segments, lengths.tolist(), strict=True):
        row[length:] = -1
    arguments = {"token_ids": token_ids, "answer_mask": answers, "segments": segments, "image_token_id": 3}
    result = student(LEARNED, **arguments, prompts=prompts)
    for row in range(4):
        for place in range(9):
            left_out = place >= lengths[row] or token_ids[row, place] == 3
            assert result[row, place] == (False if left_out else prompts or bool(answers[row, place]))


# ── 5.6: the grid that loses least ────────────────────────────────────────────────────────────────────────────────────

TILES = "model.anyres:cut_into_tiles"
PINPOINTS = [(4, 8), (8, 4), (8, 8), (12, 4), (4, 12)]


def grid_chosen(student, height, width, pinpoints=PINPOINTS):
    """Rows and columns of tiles: an image of ever brighter columns tells which tiles lie side by side."""
    image = torch.arange(width, dtype=torch.float32).expand(1, height, width) + 1.0
    tiles = student(TILES, image=image.clone(), pinpoints=pinpoints, side=4)[1:]
    means = [tile.max().item() for tile in tiles]
    columns = next((place for place in range(1, len(means)) if means[place] <= means[place - 1] + 1e-3), len(means))
    return len(means) // columns, columns


@pytest.mark.exercise("5.6")
@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [
        (4, 8, (1, 2)),  # exactly one of the sizes
        (8, 4, (2, 1)),
        (8, 8, (2, 2)),
        (3, 9, (1, 3)),  # a long one
        (9, 3, (3, 1)),
        (4, 4, (1, 2)),  # nothing is lost in any size; the first of those with the least black
        (5, 5, (2, 2)),  # shrunk to 4 × 4 it would lose detail
        (3, 7, (1, 2)),  # larger than itself shows nothing new, and wastes more
        (40, 90, (1, 3)),  # shrunk to 4 × 9 it keeps most pixels; in 4 × 8 and 8 × 8 it would be 3 × 8
        (8, 17, (1, 3)),  # 4 × 8; in 4 × 8 and 8 × 8 it would be 3 × 8: as wide, and less high
        (8, 15, (2, 2)),  # 4 × 8; in 4 × 8 and 4 × 12 it would be 4 × 7: as high, and less wide
        (100, 100, (2, 2)),
    ],
)
def test_the_size_that_keeps_most_and_wastes_least(student, height, width, grid):
    assert grid_chosen(student, height, width) == grid


@pytest.mark.exercise("5.6")
def test_the_order_of_the_list_makes_no_difference_where_sizes_differ(student):
    for height, width in ((8, 8), (3, 9), (9, 3), (5, 5), (3, 7), (40, 90)):
        turned = grid_chosen(student, height, width, PINPOINTS[::-1])
        assert turned == grid_chosen(student, height, width)


@pytest.mark.exercise("5.6")
def test_random_images_and_sizes(student):
    """Sides of the image are powers of two, so that every scale is exact in floating point."""
    grids = [[(1, 2), (2, 1)], [(1, 3), (3, 1)], [(2, 2), (1, 4), (4, 1)], [(2, 3), (3, 2)], [(1, 5), (5, 1)]]
    for _ in range(8):
        pinpoints = []
        for place in torch.randperm(5).tolist():
            rows, columns = grids[place][int(torch.randint(len(grids[place]), ()))]
            pinpoints.append((4 * rows, 4 * columns))
        height, width = (2 ** torch.randint(1, 7, (2,))).tolist()
        image = torch.rand(1, height, width) + 0.5
        tiles = len(student(TILES, image=image, pinpoints=pinpoints, side=4)) - 1
        best = (-1, 0)
        for high, wide in pinpoints:
            # An image that is taller than the size fills its height, and another one its width.
            narrow = height * wide > width * high
            inside = high * (width * high // height) if narrow else wide * (height * wide // width)
            best = max(best, (min(inside, height * width), -high * wide))
        assert 16 * tiles == -best[1], (height, width, pinpoints)


# ── 5.7: cut the black bars away ──────────────────────────────────────────────────────────────────────────────────────

BARS = "model.anyres:remove_padding"


def numbered(rows, columns):
    return torch.arange(rows * columns, dtype=torch.float32).reshape(rows, columns, 1)


@pytest.mark.exercise("5.7")
@pytest.mark.parametrize(
    ("image", "rows", "columns"),
    [
        ((10, 30), (2, 4), (0, 6)),  # 2 of 6 rows are filled
        ((20, 30), (1, 5), (0, 6)),
        ((30, 10), (0, 6), (2, 4)),
        ((30, 20), (0, 6), (1, 5)),
        ((7, 7), (0, 6), (0, 6)),
        ((13, 14), (0, 6), (0, 6)),  # 5.57 of 6 rows
        ((16, 30), (1, 5), (0, 6)),  # 3.2 of 6 rows: a bar of one row and a half is one row
    ],
)
def test_patches_of_the_image_stay(student, image, rows, columns):
    patches = numbered(6, 6)
    result = student(BARS, patches=patches, image=image)
    close(result, patches[rows[0] : rows[1], columns[0] : columns[1]])


@pytest.mark.exercise("5.7")
def test_a_grid_that_is_no_square(student):
    patches = numbered(4, 8)
    close(student(BARS, patches=patches, image=(10, 20)), patches)
    close(student(BARS, patches=patches, image=(10, 40)), patches[1:3])
    close(student(BARS, patches=patches, image=(20, 20)), patches[:, 2:6])
    close(student(BARS, patches=numbered(8, 12), image=(10, 40)), numbered(8, 12)[2:6])  # 3 of 8 rows
    close(student(BARS, patches=numbered(12, 8), image=(40, 10)), numbered(12, 8)[:, 2:6])
    close(student(BARS, patches=patches, image=(10, 15)), patches[:, 1:7])  # wider than high, and less than the grid


@pytest.mark.exercise("5.7")
def test_seven_patches_that_come_out_as_a_little_less_are_seven(student):
    """49 · (1 / 7) is 7 but for the last bit, in floating point."""
    for rows, image in ((9, (49, 63)), (11, (49, 77)), (13, (49, 91)), (25, (49, 175))):
        filled = image[0] * (rows / image[1])
        assert math.isclose(filled, round(filled))
        patches = numbered(rows, rows)
        bar = (rows - round(filled)) // 2
        close(student(BARS, patches=patches, image=image), patches[bar : rows - bar])
    # 47 · (6 / 94) is less than 3 in floating point: with 2 rows of the image, the bars would have 2 rows each.
    patches = numbered(6, 6)
    close(student(BARS, patches=patches, image=(47, 94)), patches[1:5])
    close(student(BARS, patches=patches, image=(94, 47)), patches[:, 1:5])


@pytest.mark.exercise("5.7")
@pytest.mark.parametrize(("image", "rows", "columns"), [((10, 30), (2, 4), (0, 6)), ((30, 20), (0, 6), (1, 5))])
def test_kept_patches_have_gradients_and_removed_ones_do_not(student, image, rows, columns):
    """The projector stands before this: without a gradient it would learn from the small whole image alone."""
    patches, upstream = torch.randn(6, 6, 3), torch.randn(rows[1] - rows[0], columns[1] - columns[0], 3)
    _, gradients = student(BARS, upstream=upstream, patches=patches, image=image)
    expected = torch.zeros(6, 6, 3)
    expected[rows[0] : rows[1], columns[0] : columns[1]] = upstream
    close(gradients["patches"], expected)


# ── 5.8: tiles laid together ──────────────────────────────────────────────────────────────────────────────────────────

PACKED = "model.anyres:join_tiles"


def tiled(grid, side):
    """Tiles whose patches are numbered as they lie in the whole: row · 100 + column; the whole image has −1, −2, …"""
    rows, columns = grid
    overview = torch.arange(rows * side)[:, None] * 100.0 + torch.arange(columns * side)
    tiles = overview.reshape(rows, side, columns, side).transpose(1, 2).reshape(rows * columns, side * side, 1)
    return torch.cat([-1.0 - torch.arange(side * side)[None, :, None], tiles]), overview


@pytest.mark.exercise("5.8")
@pytest.mark.parametrize("grid", [(1, 2), (2, 1), (2, 2), (3, 1), (2, 3)])
def test_the_whole_first_then_rows_with_a_newline_behind_each(student, grid):
    tiles, overview = tiled(grid, 2)
    image = (grid[0] * 2, grid[1] * 2)
    result = student(PACKED, tiles=tiles, image=image, grid=grid, newline=torch.tensor([0.5]))
    lines = torch.cat([overview, torch.full((len(overview), 1), 0.5)], dim=1)
    close(result[:, 0], torch.cat([torch.tensor([-1.0, -2.0, -3.0, -4.0]), lines.flatten()]))


@pytest.mark.exercise("5.8")
def test_bars_are_left_out_and_newlines_counted_by_the_rows_that_stay(student):
    tiles, overview = tiled((2, 2), 2)
    result = student(PACKED, tiles=tiles, image=(10, 20), grid=(2, 2), newline=torch.tensor([0.5]))
    lines = torch.cat([overview[1:3], torch.full((2, 1), 0.5)], dim=1)
    close(result[4:, 0], lines.flatten())


@pytest.mark.exercise("5.8")
def test_every_newline_is_the_same_one_and_learns_from_all(student):
    tiles, newline = torch.randn(5, 4, 3), torch.randn(3)
    upstream = torch.randn(4 + 4 * 5, 3)
    _, gradients = student(PACKED, upstream=upstream, tiles=tiles, image=(8, 8), grid=(2, 2), newline=newline)
    close(gradients["newline"], upstream[[8, 13, 18, 23]].sum(0))
    close(gradients["tiles"][0], upstream[:4])
    close(gradients["tiles"].sum((0, 1)), upstream.sum(0) - gradients["newline"], 1e-4)


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        FEATURES,
        {"hidden_states": [torch.ones(1, 3, 1)] * 2, "layers": [0], "prefix_tokens": 2},
        [(1, 1, 1)],
        marks=pytest.mark.exercise("5.3"),
    ),
    pytest.param(
        "model.llava:splice_images",
        {"text": torch.ones(1, 2, 1), "is_image": torch.tensor([[True, False]]), "images": torch.ones(1, 1)},
        [(1, 2, 1)],
        marks=pytest.mark.exercise("5.4"),
    ),
    pytest.param(
        LEARNED,
        {name: value[:1] if torch.is_tensor(value) else value for name, value in sequence().items()},
        [(1, 6)],
        marks=pytest.mark.exercise("5.5"),
    ),
    pytest.param(
        BARS, {"patches": torch.ones(1, 1, 1), "image": (4, 4)}, [(1, 1, 1)], marks=pytest.mark.exercise("5.7")
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
