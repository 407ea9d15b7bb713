"""Read any video file at chosen times: upright RGB frames, with memory for the requested frames only.

    info = read_video_info("holiday.mp4")                                    # seconds, width, height, codec
    frames = read_frames("holiday.mp4", frame_times(info.seconds, 2), longest_side=384)
    frames                                                                   # uint8 [times, height, width, 3]

A frame is shown from its own time stamp until the next one, so a variable frame rate needs no special care. Frames are
decoded one after another, and those that no requested time falls on are dropped at once. Needs the package `av`
(PyAV), which contains FFmpeg.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from data.toybox.video.clip import Seconds
from shared.errors import CourseError
from shared.images import MAX_PIXELS
from shared.text_files import printable

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".ogv", ".3gp", ".flv", ".gif")
"""File types, in lowercase, that readers of folders take for videos."""
MAX_BYTES = 2**30
"""Most memory of the frames of one call."""
# Playlists could refer to other files and to the network, so only containers are accepted.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,avi,mpeg,mpegvideo,mpegts,ogg,flv,h264,hevc,mp3,wav,flac,aac"


class VideoInfo(NamedTuple):
    """What a video file states about its first video stream.

    seconds        length, exact
    width, height  pixels of an upright frame
    codec          FFmpeg's name of the codec
    """

    seconds: Fraction
    width: int
    height: int
    codec: str


def import_av() -> Any:
    """Return the package `av`. Raises CourseError when it is not installed."""
    try:
        import av
    except ImportError as error:
        raise CourseError(
            "video files need the package av (PyAV): .venv/bin/pip install -c constraints.txt -r requirements.txt"
        ) from error
    return av


def read_video_info(file: Path | str) -> VideoInfo:
    """Return the length, size and codec of a video file.

    Raises CourseError that names the file when it is missing, damaged, without video, or of an unknown codec.
    """
    with _open_video(file) as (container, stream):
        _, _, frame = next(_intervals(file, container, stream))
        width, height = frame.width, frame.height
        if frame.rotation % 180:
            width, height = height, width
        codec = stream.codec_context.name
        if stream.duration:
            return VideoInfo(stream.duration * stream.time_base, width, height, codec)
    return VideoInfo(read_frame_times(file, with_end=True)[-1], width, height, codec)


def read_frame_times(file: Path | str, *, with_end: bool = False) -> list[Fraction]:
    """Return the exact time stamps of all frames in seconds from the first one, without decoding them.

    With `with_end` the end of the last frame is appended. Raises CourseError as `read_video_info` does, and when the
    frames have no time stamps.
    """
    stamps = []
    with _open_video(file) as (container, stream), _decoder_errors(file):
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                stamps.append((packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base))
    if not stamps:
        raise CourseError(f"{printable(file)} contains no frame with a time stamp; convert it to MP4")
    stamps.sort()
    times = [time - stamps[0][0] for time, _ in stamps]
    return [*times, times[-1] + stamps[-1][1]] if with_end else times


def read_frames(
    file: Path | str, times: Sequence[Seconds], *, longest_side: int | None = None
) -> UInt8[np.ndarray, "times height width 3"]:
    """Return the frame that is shown at each time, in seconds from the first frame; in any order, with repetitions.

    longest_side  frames with a longer side are scaled down to it, in the same aspect ratio

    Raises CourseError as `read_video_info` does, when the video ends before a requested time (as a truncated file
    does), and when the frames would need more than `MAX_BYTES`; ValueError for no time or a negative time.
    """
    requested = sorted((Fraction(time), position) for position, time in enumerate(times))
    if not requested or requested[0][0] < 0:
        raise ValueError(f"times {[float(time) for time, _ in requested][:3]} s: expected at least one, none below 0")
    result: np.ndarray | None = None
    index = 0
    with _open_video(file) as (container, stream):
        for _, end, frame in _intervals(file, container, stream):
            if requested[index][0] >= end:
                continue
            image = _to_rgb(frame, longest_side)
            if result is None:
                _check_memory(file, len(requested), image)
                result = np.empty((len(requested), *image.shape), np.uint8)
            if image.shape != result.shape[1:]:
                raise CourseError(f"{printable(file)} changes the size of its frames; convert it to one size")
            while index < len(requested) and requested[index][0] < end:
                result[requested[index][1]] = image
                index += 1
            if index == len(requested):
                return result
    raise CourseError(
        f"{printable(file)} ends at {float(end):.3f} s, before the requested time {float(requested[index][0]):.3f} s: "
        "it may be truncated; copy it again, or request earlier times"
    )


def _intervals(file: Path | str, container: Any, stream: Any) -> Iterator[tuple[Fraction, Fraction, Any]]:
    """Yield (start, end, frame) in seconds for each decoded frame; it is shown until the next one starts.

    The last frame is shown for its own duration, and one more frame's duration is tolerated because lengths that
    files state are rounded.
    """
    pending: Any = None
    first = start = Fraction(0)
    with _decoder_errors(file):
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            time = frame.pts * frame.time_base
            if pending is None:
                first = time
            elif time - first > start:
                yield start, time - first, pending
            pending, start = frame, time - first
    if pending is None:
        raise CourseError(f"{printable(file)} contains no frame with a time stamp; expected a video of at least one")
    duration = (pending.duration or 0) * pending.time_base
    stated = (stream.duration or 0) * stream.time_base if duration == 0 else 0
    yield start, max(start + 2 * duration, Fraction(stated), start + Fraction(1, 1000)), pending


def _to_rgb(frame: Any, longest_side: int | None) -> UInt8[np.ndarray, "height width 3"]:
    """Return a decoded frame as upright RGB, scaled down to `longest_side`."""
    width, height = frame.width, frame.height
    if longest_side is not None and max(width, height) > longest_side:
        scale = Fraction(longest_side, max(width, height))
        width, height = (max(1, round(side * scale)) for side in (width, height))
    pixels = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90 % 4))


def _check_memory(file: Path | str, count: int, image: UInt8[np.ndarray, "height width 3"]) -> None:
    """Raise CourseError when `count` frames would need more than `MAX_BYTES`."""
    if count * image.nbytes > MAX_BYTES:
        height, width = image.shape[:2]
        raise CourseError(
            f"{printable(file)}: {count:,} frames of {width:,} × {height:,} pixels need {count * image.nbytes:,} "
            f"bytes, more than {MAX_BYTES:,}: request fewer times, or pass a smaller longest_side"
        )


@contextmanager
def _open_video(file: Path | str) -> Iterator[tuple[Any, Any]]:
    """Yield the opened container and its first video stream. Raises CourseError as `read_video_info` does."""
    av, name = import_av(), printable(file)
    try:
        # An opened file instead of its name, which FFmpeg could take for the address of another machine.
        source = open(file, "rb")  # noqa: SIM115  # closed below, after the container
    except OSError as error:
        raise CourseError(f"{name} cannot be read ({error.strerror}); expected a video file") from None
    with source:
        with _decoder_errors(file):
            container = av.open(source, container_options={"format_whitelist": _FORMATS})
        with container:
            # An audio file may hold its cover as a video stream of one image.
            cover = av.stream.Disposition.attached_pic
            streams = [stream for stream in container.streams.video if not stream.disposition & cover]
            if not streams:
                raise CourseError(
                    f"{name} contains no video, only {_describe_streams(container)}; expected a video file"
                )
            stream = streams[0]
            if stream.codec_context is None:
                raise CourseError(f"{name}: no decoder for its video codec; convert it to MP4 with H.264")
            if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
                raise CourseError(f"{name}: frames of more than {MAX_PIXELS:,} pixels; scale the video down")
            yield container, stream


def _describe_streams(container: Any) -> str:
    return " and ".join(sorted({stream.type for stream in container.streams})) or "an empty container"


@contextmanager
def _decoder_errors(file: Path | str) -> Iterator[None]:
    """Turn an error of FFmpeg raised inside into a CourseError that names the file."""
    av = import_av()
    try:
        yield
    except (av.error.FFmpegError, EOFError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CourseError(
            f"{printable(file)}: unreadable video ({printable(reason)}); it may be truncated, damaged or no video: "
            "copy it again, or convert it to MP4 with H.264"
        ) from error
