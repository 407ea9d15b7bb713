"""Times at which a clip is sampled, and its frames as pixels, with the standard library only.

A clip has no frame rate; it is sampled at any times. `frame_times` samples it at a constant rate, `spread_times` with a
constant number of frames, and `event_times` densely around events. `data.toybox.video.arrays` computes the same
pixels with NumPy, much faster.
"""

from collections.abc import Sequence
from fractions import Fraction

from data.toybox.raster import background, check_size, corner, size_in_pixels, sprite
from data.toybox.scene import Scene
from data.toybox.video.clip import Clip, Seconds, scene_at_time


def frame_times(seconds: Seconds, frames_per_second: Seconds) -> tuple[Fraction, ...]:
    """Return the exact times 0, 1/rate, 2/rate, … below a length in seconds; at least the time 0.

    Raises ValueError when the length is negative or the rate is not positive.
    """
    length, rate = Fraction(seconds), Fraction(frames_per_second)
    if length < 0 or rate <= 0:
        raise ValueError(f"{float(length):g} s at {float(rate):g} frames per second: expected a rate above 0")
    count = max(1, -(-length * rate // 1))  # the number of whole numbers below length · rate
    return tuple(Fraction(index) / rate for index in range(int(count)))


def spread_times(seconds: Seconds, count: int) -> tuple[Fraction, ...]:
    """Return the centers of `count` equal parts of a length in seconds; the middle time for one frame.

    Raises ValueError when `count` is below 1 or the length is negative.
    """
    length = Fraction(seconds)
    if count < 1 or length < 0:
        raise ValueError(f"{count} frames of {float(length):g} s: expected at least one frame and no negative length")
    return tuple(length * (2 * index + 1) / (2 * count) for index in range(count))


def event_times(
    clip: Clip, base_rate: Seconds, burst_rate: Seconds, margin: Seconds = Fraction(1, 4)
) -> list[Fraction]:
    """Return times at a low rate, and at a high rate from `margin` seconds before each event until `margin` after it.

    The sampler reads the true event times, so it is the upper bound of samplers that detect events in the frames.
    Raises ValueError as `frame_times` does.
    """
    times = set(frame_times(clip.seconds, base_rate))
    for time in frame_times(clip.seconds, burst_rate):
        if any(_distance(time, event.start, event.end) <= Fraction(margin) for event in clip.events):
            times.add(time)
    return sorted(times)


def _distance(seconds: Fraction, start: int, end: int) -> Fraction:
    """Return the seconds between a time and an interval in milliseconds; 0 inside it."""
    return max(Fraction(start, 1000) - seconds, seconds - Fraction(end, 1000), Fraction(0))


def rasterize_frame(scene: Scene, size: int = 64) -> bytes:
    """Render the scene of one time: size × size pixels of red, green and blue bytes, row by row.

    Objects that lie partly outside the world are cut off at its border; all others have the pixels of `rasterize`.
    Raises ValueError when `size` is below 16.
    """
    check_size(size)
    pixels = bytearray(background(scene.background, size))
    for scene_object in scene.objects:
        left, top = corner(scene_object, size)
        width, keep, ink = sprite(
            scene_object.shape, scene_object.color, scene_object.texture, size_in_pixels(scene_object.size, size)
        )
        for row in range(max(0, -top), min(width, size - top)):
            for column in range(max(0, -left), min(width, size - left)):
                source, at = row * width + column, 3 * ((top + row) * size + left + column)
                for channel in range(3):
                    pixels[at + channel] = (keep[source] * pixels[at + channel] + ink[3 * source + channel]) >> 4
    return bytes(pixels)


def rasterize_frames(clip: Clip, times: Sequence[Seconds], size: int = 64) -> list[bytes]:
    """Render a clip at times in seconds, as `rasterize_frame` does. Raises ValueError for a time outside the clip."""
    return [rasterize_frame(scene_at_time(clip, time), size) for time in times]
