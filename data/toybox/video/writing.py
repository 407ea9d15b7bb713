"""Write frames to video files with exact time stamps: MP4 through PyAV, GIF through Pillow."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data.toybox.video.clip import Seconds
from data.toybox.video.files import import_av
from shared.atomic import atomic_file
from shared.errors import CourseError

Frame = UInt8[np.ndarray, "height width 3"]
_MAX_TIME_SCALE = 2**31 - 1


def write_video(
    file: Path | str, frames: Iterable[Frame], times: Sequence[Seconds], seconds: Seconds, *, lossless: bool = False
) -> None:
    """Write frames as an MP4 (H.264) or GIF file, chosen by the suffix; each frame is shown from its time on.

    frames    as many as times, all of one size; an iterator is read one frame after another
    times     in seconds, increasing, the first one 0; any rational numbers for MP4, hundredths of a second for GIF
    seconds   the end of the last frame
    lossless  MP4 only: keep every pixel, as RGB, which some players do not show; otherwise width and height are even

    A GIF frame of at most 256 colors is kept exactly; one of more colors is quantized. A run of equal frames becomes
    one GIF frame. Raises CourseError for a time or size that the format cannot hold, and when the file cannot be
    written; ValueError when times and frames do not match.
    """
    path = Path(file)
    stamps = [Fraction(time) for time in times]
    ends = [*stamps[1:], Fraction(seconds)]
    if not stamps or stamps[0] != 0 or any(end <= start for start, end in zip(stamps, ends, strict=True)):
        raise ValueError(
            f"{len(stamps)} times until {float(seconds):g} s: expected increasing times from 0, all before the end"
        )
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if path.suffix.lower() not in writers:
        raise CourseError(f"{path}: cannot write {path.suffix or 'a file without a suffix'}; choose .mp4 or .gif")
    checked = _check_frames(path, frames, len(stamps))
    with atomic_file(path) as temporary:
        writers[path.suffix.lower()](temporary, path, checked, [*stamps, Fraction(seconds)], lossless)


def _check_frames(path: Path, frames: Iterable[Frame], count: int) -> Iterator[Frame]:
    """Yield the frames. Raises ValueError when one has another type or size, or when their number is not `count`."""
    number, shape = 0, None
    for frame in frames:
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
            raise ValueError(f"frame {number}: {frame.dtype} {frame.shape}; expected uint8 {shape}, [height, width, 3]")
        number += 1
        if number <= count:
            yield frame
    if number != count:
        raise ValueError(f"{number} frames and {count} times for {path}: expected equal numbers")


def _write_mp4(temporary: Path, path: Path, frames: Iterator[Frame], stamps: list[Fraction], lossless: bool) -> None:
    av = import_av()
    scale = lcm(*(time.denominator for time in stamps))
    if scale * max(Fraction(1), stamps[-1]) > _MAX_TIME_SCALE:
        raise CourseError(f"{path}: times with the common denominator {scale}; round them, for example to 1/90000 s")
    pts = [int(time * scale) for time in stamps]
    durations = {start: end - start for start, end in pairwise(pts)}
    try:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = None
            for number, frame in enumerate(frames):
                stream = stream or _add_stream(container, path, frame, Fraction(1, scale), lossless)
                image = av.VideoFrame.from_ndarray(frame, format="rgb24")
                image.pts, image.time_base = pts[number], Fraction(1, scale)
                _mux(container, stream.encode(image), durations)
            _mux(container, stream.encode() if stream else [], durations)
    except av.error.FFmpegError as error:
        raise CourseError(f"{path} cannot be written ({error.strerror})") from error


def _mux(container: Any, packets: Sequence[Any], durations: dict[int, int]) -> None:
    """Write packets with their durations, which the encoder does not keep; the last one sets the video's length."""
    for packet in packets:
        packet.duration = durations[packet.pts]
        container.mux(packet)


def _add_stream(container: Any, path: Path, frame: Frame, time_base: Fraction, lossless: bool) -> Any:
    height, width = frame.shape[:2]
    if not lossless and (height % 2 or width % 2):
        raise CourseError(f"{path}: frames of {width} × {height} pixels; expected even sides, or pass lossless=True")
    options = {"crf": "0", "preset": "veryfast"} if lossless else {"crf": "18"}
    # With one thread the file is the same on every run.
    stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=30, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "rgb24" if lossless else "yuv420p"
    stream.time_base = stream.codec_context.time_base = time_base
    stream.codec_context.thread_count = 1
    return stream


def _write_gif(temporary: Path, path: Path, frames: Iterator[Frame], stamps: list[Fraction], lossless: bool) -> None:
    if any((100 * time).denominator > 1 for time in stamps):
        raise CourseError(f"{path}: a GIF stores hundredths of a second; choose such times, or write an MP4 file")
    durations = [int(1000 * (end - start)) for start, end in pairwise(stamps)]
    images = (_palette_image(frame) for frame in frames)
    first = next(images)
    options = {"save_all": True, "append_images": images, "optimize": False, "disposal": 1}
    first.save(temporary, format="GIF", duration=durations, loop=0, **options)


def _palette_image(frame: Frame) -> Image.Image:
    """Return a frame with a palette of its own colors; frames of more than 256 colors are quantized."""
    codes = (frame.astype(np.uint32) * np.array([1 << 16, 1 << 8, 1], np.uint32)).sum(-1, dtype=np.uint32)
    colors, indices = np.unique(codes, return_inverse=True)
    if len(colors) > 256:
        return Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE)
    image = Image.fromarray(indices.reshape(frame.shape[:2]).astype(np.uint8), "P")
    image.putpalette(np.stack([colors >> 16, colors >> 8 & 255, colors & 255], -1).astype(np.uint8).tobytes())
    return image
