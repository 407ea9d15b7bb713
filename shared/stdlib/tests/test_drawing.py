"""Test sparklines, images in characters, and charts."""

import math
import xml.etree.ElementTree as ElementTree

import pytest

from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.chart import LEFT, RIGHT, WIDTH, line_chart
from shared.stdlib.sparkline import sparkline


def test_sparkline_rises_with_the_values():
    assert sparkline(range(8)) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 1.0, 2.0, 0.0], width=2) == "█▁"
    assert sparkline(list(range(800)), width=8) == "▁▂▃▄▅▆▇█"


def test_sparkline_of_empty_constant_and_non_finite_values():
    assert sparkline([]) == ""
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline([0.0, math.nan, 7.0, math.inf]) == "▁ █ "
    assert sparkline([math.nan]) == " "


def test_shading_is_densest_where_the_value_is_greatest():
    assert ascii_image([[0, 9], [1, 5]]) == ["  @@", "..++"]
    assert ascii_image([[0, 0.9], [0.1, 0.5]]) == ascii_image([[0, 9], [1, 5]])
    assert ascii_image([[0.0, 0.0]]) == ["    "]
    assert ascii_image([]) == []


def paths(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [path.get("d") for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("fill") == "none"]


def points(path: str) -> list[tuple[float, float]]:
    return [tuple(map(float, part.split())) for part in path.replace("M", "L").split("L")[1:]]


def test_chart_places_points_in_proportion():
    svg = line_chart({"loss": [(0, 0), (5, 10), (10, 5)]}, "A chart", "step", "loss")
    (first, top, last) = points(paths(svg)[0])
    assert first[0] == LEFT and last[0] == WIDTH - RIGHT and top[0] == pytest.approx((first[0] + last[0]) / 2)
    # Up on paper is down in coordinates.
    assert top[1] < last[1] < first[1] and last[1] == pytest.approx((first[1] + top[1]) / 2)
    assert all(f">{word}<" in svg for word in ("A chart", "step", "loss", "0", "10"))


def test_chart_interrupts_lines_at_nan_and_escapes_names():
    svg = line_chart({"a<b & c": [(0, 1), (1, math.nan), (2, 3), (3, 4)], "d": [(0, 2)]}, "<t>", "x", "y")
    assert [path.count("M") for path in paths(svg)] == [2, 1]
    assert "a&lt;b &amp; c" in svg


@pytest.mark.parametrize("line", [[(0, 0)], [(3, 7), (9, 7)], [(0, 1e-9), (1, 2e-9)], [(0, -1e12), (1, 1e12)]])
def test_chart_of_one_point_a_flat_line_or_extreme_sizes(line):
    for x, y in points(paths(line_chart({"a": line}, "", "", ""))[0]):
        assert 0 <= x <= WIDTH and 0 <= y <= 400


def test_chart_without_points_is_rejected():
    with pytest.raises(ValueError, match="'empty' has no point"):
        line_chart({"a": [(0, math.nan)]}, "empty", "", "")
