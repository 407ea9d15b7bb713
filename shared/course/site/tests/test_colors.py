"""The colors of figures can be distinguished, and those of the site read, with every kind of color vision."""

from itertools import combinations

import numpy as np
import pytest

from shared import plots
from shared.course.site import conf
from shared.plots.style import PALETTE

# How linear red, green and blue appear when one kind of cone is missing (Machado, Oliveira & Fernandes 2009,
# doi:10.1109/TVCG.2009.113, table 1, severity 1).
COLOR_VISION = {
    "all three kinds of cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def linear(color) -> np.ndarray:
    """Return linear RGB from "#RRGGBB" or from sRGB values between 0 and 1."""
    if isinstance(color, str):
        color = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    value = np.asarray(color[:3], dtype=float)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(color, vision: str) -> np.ndarray:
    """Return CIE L*a*b* coordinates, in which a difference of 2.3 is just noticeable."""
    ratio = TO_XYZ @ np.clip(COLOR_VISION[vision] @ linear(color), 0, 1) / WHITE
    curve = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * curve[1] - 16, 500 * (curve[0] - curve[1]), 200 * (curve[1] - curve[2])])


def smallest_difference(palette, vision: str) -> float:
    return min(float(np.linalg.norm(lab(one, vision) - lab(other, vision))) for one, other in combinations(palette, 2))


def contrast(one: str, other: str) -> float:
    light, dark = sorted((float(TO_XYZ[1] @ linear(color)) for color in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("vision", COLOR_VISION)
def test_any_two_colors_of_a_figure_can_be_distinguished(vision):
    # Six times the just noticeable difference.
    assert smallest_difference(PALETTE, vision) > 6 * 2.3


def test_red_and_green_of_equal_lightness_would_be_noticed():
    assert smallest_difference(["#C85050", "#5A8A3C"], "all three kinds of cones") > 6 * 2.3
    assert smallest_difference(["#C85050", "#5A8A3C"], "deuteranopia") < 6 * 2.3


@pytest.mark.parametrize("vision", COLOR_VISION)
def test_color_maps_darken_steadily_and_signs_differ_in_color(vision):
    lightness = [lab(plots.SEQUENTIAL(value), vision)[0] for value in np.linspace(0, 1, 21)]
    assert all(np.diff(lightness) < 0), "more is darker"
    for size in (0.25, 0.5, 1.0):
        ends = [plots.DIVERGING(0.5 - size / 2), plots.DIVERGING(0.5 + size / 2)]
        assert smallest_difference(ends, vision) > 6 * 2.3


def test_links_have_enough_contrast_on_light_and_dark_pages():
    for variables, page in (("light_css_variables", "#FFFFFF"), ("dark_css_variables", "#131416")):
        for name, color in conf.html_theme_options[variables].items():
            assert contrast(color, page) >= 4.5, f"{name} {color} on {page}"
