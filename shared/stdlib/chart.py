"""Line charts as SVG: a text file that every browser shows."""

import math
from collections.abc import Callable, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 50, 55
# Okabe and Ito's colors, which remain distinct for color-blind readers.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def line_chart(series: dict[str, Points], title: str, x_label: str, y_label: str) -> str:
    """Return the text of an SVG file with one line per named series of (x, y) points.

    Points that are not finite are left out and interrupt their line. Raises ValueError when no point is left.
    """
    points = [point for line in series.values() for point in line if _finite(point)]
    if not points:
        raise ValueError(f"the chart {title!r} has no point with finite coordinates to draw")
    x_ticks = _ticks([x for x, _ in points])
    y_ticks = _ticks([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 24, title, "middle", size=16),
        _text(WIDTH / 2, HEIGHT - 14, x_label, "middle"),
        _text(16, HEIGHT / 2, y_label, "middle", transform=f' transform="rotate(-90 16 {HEIGHT / 2:g})"'),
    ]
    for tick in y_ticks:
        _, y = place(x_ticks[0], tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{tick:g}", "end"))
    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{tick:g}", "middle"))
    for number, (name, line) in enumerate(series.items()):
        color = COLORS[number % len(COLORS)]
        parts.append(f'<path d="{_path(line, place)}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(_text(WIDTH - RIGHT, TOP + 4 + 16 * number, name, "end", color=color))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _finite(point: tuple[float, float]) -> bool:
    return all(map(math.isfinite, point))


def _path(line: Points, place: Callable[[float, float], tuple[float, float]]) -> str:
    """Return an SVG path: move to the first point after a gap, draw to the others."""
    commands, drawing = [], False
    for point in line:
        if _finite(point):
            x, y = place(*point)
            commands.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
        drawing = _finite(point)
    return "".join(commands)


def _text(
    x: float, y: float, text: str, anchor: str, *, size: int = 12, color: str = "#222222", transform: str = ""
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{color}"'
    return f"<text {place}{transform}>{escape(text)}</text>"


def _ticks(values: Sequence[float]) -> list[float]:
    """Return four to nine round numbers, from at or below the smallest value to at or above the largest."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    magnitude = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(magnitude * factor for factor in (1, 2, 5, 10) if (high - low) / (magnitude * factor) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]
