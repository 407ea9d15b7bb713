"""Figures: deterministic bytes, what the charts draw, and refused data."""

import io
import struct
import zlib

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from PIL import Image

from shared import plots
from shared.errors import CourseError
from shared.plots.charts import _label_ends
from shared.plots.images import _overlay, as_rgb
from shared.plots.style import as_png


def curves():
    steps = list(range(0, 100, 10))
    return {
        "model": [(steps, np.sqrt(steps)), (steps, np.sqrt(steps) + 1)],
        "baseline": [(steps, np.array(steps) / 20)],
    }


DRAWN = {
    "figure": lambda: plots.subplots("a title", note="a note")[0],
    "learning_curves": lambda: plots.learning_curves(curves(), title="t", baselines={"chance": 2.0}),
    "bars_with_intervals": lambda: plots.bars_with_intervals(
        {"model": [0.9, 0.92], "baseline": [0.8]}, baselines={"chance": 0.1}, highlight="model", percent=True
    ),
    "points": lambda: plots.bars_with_intervals({"a": [0.9, 0.92]}, intervals={"a": (0.85, 0.95)}, start=0.8),
    "image_grid": lambda: plots.image_grid(
        [np.identity(8)] * 7, list("abcdefg"), columns=4, correct=[True, False] * 3 + [True]
    ),
    "attention_overlay": lambda: plots.attention_overlay(np.identity(8), np.ones((2, 4, 4)), captions=["a", "b"]),
    "matrix": lambda: plots.heatmap(np.identity(3) - 0.5, row_labels="abc", column_labels="def", x_label="x"),
    "large matrix": lambda: plots.heatmap(np.identity(30)),
    "heatmap_grid": lambda: plots.heatmap_grid(np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_data_gives_the_same_bytes_in_any_outer_style(name, tmp_path):
    first = DRAWN[name]()
    plots.save(first, tmp_path / "first.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20}):
        second = DRAWN[name]()
        plots.save(second, tmp_path / "folder" / "second.png")
    content = (tmp_path / "first.png").read_bytes()
    assert isinstance(first, plots.Figure)
    assert content == (tmp_path / "folder" / "second.png").read_bytes()
    assert 600 < Image.open(io.BytesIO(content)).width <= 1280


def test_a_notebook_shows_the_content_of_the_file(tmp_path):
    figure = plots.image_grid([np.identity(8)] * 7, list("abcdefg"), columns=4)
    plots.save(figure, tmp_path / "figure.png")
    content, metadata = figure._repr_png_()
    assert content == (tmp_path / "figure.png").read_bytes() and metadata == {"width": 800}


def test_a_file_contains_no_software_version_and_no_time(tmp_path):
    plots.save(DRAWN["matrix"](), tmp_path / "figure.png")
    content, position, kinds = (tmp_path / "figure.png").read_bytes(), 8, set()
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kinds.add(content[position + 4 : position + 8])
        position += 12 + length
    assert kinds == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


def test_another_value_gives_another_image():
    first, second = (as_png(plots.heatmap(np.array([[0.1, value], [0.3, 1.0]]))) for value in (0.2, 0.7))
    assert zlib.crc32(first) != zlib.crc32(second)


def test_pyplot_and_the_global_style_are_unchanged():
    before = dict(matplotlib.rcParams)
    DRAWN["learning_curves"]()
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_the_line_is_the_mean_of_the_seeds_and_the_band_their_range():
    seeds = [([10, 20, 30], [1.0, 2.0, 6.0]), ([10, 20, 30, 40], [3.0, 4.0, 0.0, 9.0])]
    axis = plots.learning_curves({"model": seeds}).axes[0]
    (line,) = axis.lines
    assert line.get_xdata().tolist() == [10, 20, 30] and line.get_ydata().tolist() == [2.0, 3.0, 3.0]
    band = axis.collections[0].get_paths()[0].vertices
    assert {(30.0, 0.0), (30.0, 6.0), (10.0, 1.0), (10.0, 3.0)} <= set(map(tuple, band.tolist()))


def test_bars_are_means_and_whiskers_one_standard_deviation():
    axis = plots.bars_with_intervals({"model": [1.0, 3.0], "baseline": [4.0]}, intervals={"baseline": (3.5, 5.0)}).axes[
        0
    ]
    assert [bar.get_width() for bar in axis.patches] == [2.0, 4.0]
    assert [list(line.get_xdata()) for line in axis.lines] == [[2 - 2**0.5, 2 + 2**0.5], [3.5, 5.0]]
    assert [text.get_text() for text in axis.texts] == ["2", "4"]


def test_a_bar_that_would_not_start_at_zero_is_a_point():
    axis = plots.bars_with_intervals({"model": [0.91, 0.93]}, start=0.9).axes[0]
    assert not axis.patches and axis.get_xlim()[0] == 0.9


def test_labels_do_not_overlap():
    axis = plots.subplots()[1][0, 0]
    axis.plot([0, 1], [0, 1])
    _label_ends(axis, [("a", 0.5, "red"), ("b", 0.51, "red"), ("c", 0.52, "red"), ("d", 0.9, "red")], gap=0.1)
    heights = {text.get_text(): text.xy[1] for text in axis.texts}
    assert np.diff([heights[name] for name in "abcd"]).min() > 0.0999
    assert abs(heights["b"] - axis.transAxes.inverted().transform(axis.transData.transform((0, 0.51)))[1]) < 1e-6


def test_images_in_every_layout_become_the_same_floats():
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    expected = array / 255
    channels_first = torch.from_numpy(array).permute(2, 0, 1) / 255
    for image in (array, expected, channels_first, channels_first.double().requires_grad_()):
        np.testing.assert_allclose(as_rgb(image), expected, atol=1e-6)
    np.testing.assert_array_equal(as_rgb(np.identity(4))[..., 2], np.identity(4))


def test_the_overlay_covers_its_patch():
    heat = np.zeros((2, 4))
    heat[1, 3] = 1.0
    overlay = _overlay(np.zeros((8, 8, 3)), heat)
    patch = overlay.shape[0] // 2, overlay.shape[1] // 4
    brightness = overlay.sum(-1)
    hot = brightness[patch[0] + 1 :, 3 * patch[1] + 1 :].copy()
    brightness[patch[0] :, 3 * patch[1] :] = 0
    assert hot.min() > 1.5 * brightness.max()


def test_the_overlay_separates_all_patches():
    """The lines are drawn, not painted into the image, so that none is lost in a small image."""
    axis = plots.attention_overlay(np.identity(8), np.ones((2, 4))).axes[1]
    segments = [segment for lines in axis.collections for segment in lines.get_segments()]
    assert len(segments) == 1 + 3


def test_marks_do_not_rely_on_color():
    figure = plots.image_grid([np.identity(2)] * 2, ["predicted 3", "predicted 4"], correct=[True, False])
    assert [axis.get_xlabel() for axis in figure.axes] == ["✓ predicted 3", "✗ predicted 4"]


def test_values_of_both_signs_have_zero_in_the_middle():
    (shades,) = plots.heatmap(np.array([[-1.0, 0.0, 3.0]])).axes[0].images
    assert shades.norm(0.0) == 0.5
    (shades,) = plots.heatmap(np.array([[1.0, 3.0]])).axes[0].images
    assert shades.norm(0.0) == 0.0


def test_a_grid_of_maps_has_each_at_its_place():
    maps = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    mosaic = plots.heatmap_grid(maps).axes[0].images[0].get_array()
    np.testing.assert_array_equal(mosaic[18:34:4, 44:64:4], maps[1, 2])
    assert np.isnan(np.asarray(mosaic.filled(np.nan))[16:18]).all()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.learning_curves({}), "at least one curve"),
        (lambda: plots.learning_curves({"a": [([1, 2], [1])]}), r"'a' has steps \(2,\) and values \(1,\)"),
        (lambda: plots.learning_curves({"a": [([1], [1]), ([2], [1])]}), "no step in common"),
        (lambda: plots.learning_curves({str(i): [([1], [1])] for i in range(7)}), "7 curves"),
        (lambda: plots.bars_with_intervals({}), "at least one bar"),
        (lambda: plots.bars_with_intervals({"a": 0.5}), "'a' needs a list"),
        (lambda: plots.image_grid([]), "at least one image"),
        (lambda: plots.image_grid([np.zeros((2, 2, 2, 2))]), r"not \[2, 2, 2, 2\]"),
        (lambda: plots.image_grid([np.zeros((4, 4, 2))]), r"not \[4, 4, 2\]"),
        (lambda: plots.image_grid([np.identity(2)], ["a", "b"]), "1 images and 2 captions"),
        (lambda: plots.attention_overlay([np.identity(4)], np.ones((2, 1, 2, 2))), "1 images and attention maps for 2"),
        (lambda: plots.attention_overlay(np.identity(4), np.ones(4)), r"not \(4,\)"),
        (lambda: plots.attention_overlay(np.identity(4), -np.ones((2, 2))), "not negative"),
        (
            lambda: plots.attention_overlay(np.identity(4), np.ones((2, 2)), captions=["a", "b"]),
            "1 maps and 2 captions",
        ),
        (lambda: plots.heatmap(np.ones(3)), r"not \(3,\)"),
        (lambda: plots.heatmap(np.identity(3), row_labels=["a"]), "3 rows and 1 row labels"),
        (lambda: plots.heatmap_grid(np.identity(3)), r"not \(3, 3\)"),
        (lambda: plots.save(plots.subplots()[0], "figure.pdf"), r"figure\.pdf"),
    ],
)
def test_invalid_data_raises(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_a_file_that_cannot_be_written_raises(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CourseError, match="cannot write the figure"):
        plots.save(plots.subplots()[0], tmp_path / "file" / "figure.png")
