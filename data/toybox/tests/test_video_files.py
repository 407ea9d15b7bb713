"""Video files: frames and time stamps survive writing and reading; every bad file is refused by name."""

import builtins
from fractions import Fraction

import numpy as np
import pytest

from data.toybox.video.arrays import render_frames
from data.toybox.video.files import import_av, read_frame_times, read_frames, read_video_info
from data.toybox.video.frames import frame_times
from data.toybox.video.generation import clip_at
from data.toybox.video.writing import write_video
from shared.errors import CourseError

av = pytest.importorskip("av", reason="the package av is not installed; see requirements.txt")
CLIP = clip_at("train", 0, 5)
UNEVEN = (0, Fraction(1, 3), Fraction(1, 2), Fraction(5, 7), 2)


def write_gray(path, times=UNEVEN, seconds: Fraction | int = 3, size=(48, 32), **options):
    """Write frames of one gray each: frame k has the value 40 · k (mod 240)."""
    frames = (np.full((*size, 3), 40 * index % 240, np.uint8) for index in range(len(times)))
    write_video(path, frames, times, seconds, **options)
    return path


@pytest.mark.parametrize("rate", [2, 7, Fraction(30000, 1001)])
def test_lossless_mp4_keeps_every_pixel_and_every_time(tmp_path, rate):
    times = frame_times(2, rate)
    frames = render_frames(CLIP, times, 33)
    write_video(tmp_path / "clip.mp4", frames, times, 2, lossless=True)
    assert read_frame_times(tmp_path / "clip.mp4", with_end=True) == [*times, 2]
    np.testing.assert_array_equal(read_frames(tmp_path / "clip.mp4", times), frames)
    assert read_video_info(tmp_path / "clip.mp4") == (2, 33, 33, "h264")


def test_ordinary_mp4_is_near_and_exact_in_time(tmp_path):
    times = frame_times(CLIP.seconds, 2)
    frames = render_frames(CLIP, times, 64)
    write_video(tmp_path / "clip.mp4", frames, times, CLIP.seconds)
    assert read_frame_times(tmp_path / "clip.mp4", with_end=True) == [*times, CLIP.seconds]
    assert np.abs(read_frames(tmp_path / "clip.mp4", times).astype(int) - frames).mean() < 4


def test_gif_keeps_frames_of_few_colors_and_the_times_at_which_they_change(tmp_path):
    times = frame_times(CLIP.seconds, 4)
    frames = render_frames(CLIP, times, 32)
    write_video(tmp_path / "clip.gif", frames, times, CLIP.seconds)
    np.testing.assert_array_equal(read_frames(tmp_path / "clip.gif", times), frames)
    assert read_video_info(tmp_path / "clip.gif").seconds == CLIP.seconds
    changes = [0, *(times[k] for k in range(1, len(times)) if (frames[k] != frames[k - 1]).any())]
    assert read_frame_times(tmp_path / "clip.gif") == changes


def test_a_variable_frame_rate_is_sampled_by_time_in_any_order(tmp_path):
    path = write_gray(tmp_path / "uneven.mp4", lossless=True)
    times = (2.5, 0, Fraction(1, 3), 0.33, 0.499, 1.99, 2, 0)
    assert read_frames(path, times)[:, 0, 0, 0].tolist() == [160, 0, 40, 0, 40, 120, 160, 0]


def test_one_frame(tmp_path):
    path = write_gray(tmp_path / "one.mp4", (0,), 1, lossless=True)
    assert read_video_info(path).seconds == 1 and read_frame_times(path) == [0]
    assert read_frames(path, (0, 0.9)).shape == (2, 48, 32, 3)
    with pytest.raises(CourseError, match=r"one.mp4 ends at .* s, before the requested time 9.000 s"):
        read_frames(path, (9,))


def test_ten_thousand_frames_need_memory_for_the_requested_ones_only(tmp_path, monkeypatch):
    times = frame_times(1000, 10)
    path = write_gray(tmp_path / "long.mp4", times, 1000, size=(16, 16))
    assert len(read_frame_times(path)) == 10_000
    frames = read_frames(path, (0, 500, 999.95))
    assert frames.shape == (3, 16, 16, 3)
    assert np.abs(frames[:, 0, 0, 0].astype(int) - [0, 40 * 5000 % 240, 40 * 9999 % 240]).max() < 8
    monkeypatch.setattr("data.toybox.video.files.MAX_BYTES", 100 * 16 * 16 * 3)
    with pytest.raises(CourseError, match=r"10,000 frames of 16 × 16 pixels need .* request fewer times"):
        read_frames(path, times)


def test_long_sides_are_scaled_down(tmp_path):
    path = write_gray(tmp_path / "video.mp4", size=(64, 96))
    assert read_frames(path, (0,), longest_side=48).shape == (1, 32, 48, 3)
    assert read_frames(path, (0,), longest_side=500).shape == (1, 64, 96, 3)


def test_rotated_videos_are_upright(tmp_path):
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:16, :24] = 200  # bright at the top left
    write_video(tmp_path / "video.mp4", [frame], (0,), 1, lossless=True)
    content = bytearray((tmp_path / "video.mp4").read_bytes())
    # The matrix of the track header (ISO 14496-12, section 8.3.2), version 0: a rotation by 90 degrees clockwise.
    at = content.index(b"tkhd") + 4 + 40
    numbers = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    content[at : at + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)
    (tmp_path / "phone.mp4").write_bytes(content)
    upright = read_frames(tmp_path / "phone.mp4", (0,))[0]
    np.testing.assert_array_equal(upright, np.rot90(frame, -1))
    assert read_video_info(tmp_path / "phone.mp4")[1:3] == (32, 48)


def test_audio_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(CourseError, match=r"sound.wav contains no video, only audio"):
        read_video_info(tmp_path / "sound.wav")


def test_damaged_files_are_refused(tmp_path):
    content = write_gray(tmp_path / "video.mp4", frame_times(3, 10)).read_bytes()
    bad = {
        "empty.mp4": b"",
        "text.mp4": b"no video at all\n" * 40,
        "truncated.mp4": content[: len(content) // 2],
        "codec.mp4": content.replace(b"avc1", b"zzz9"),
        "playlist.m3u8": b"#EXTM3U\n#EXTINF:1,\nvideo.mp4\n#EXT-X-ENDLIST\n",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CourseError, match=name):
            read_frames(tmp_path / name, (0,))
        with pytest.raises(CourseError, match=name):
            read_video_info(tmp_path / name)
    with pytest.raises(CourseError, match=r"missing.mp4 cannot be read \(No such file"):
        read_frames(tmp_path / "missing.mp4", (0,))
    with pytest.raises(CourseError, match="cannot be read"):
        read_frames(tmp_path, (0,))


def test_a_video_without_frames_is_refused(tmp_path):
    with av.open(str(tmp_path / "none.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    for read in (read_video_info, read_frame_times, lambda path: read_frames(path, (0,))):
        with pytest.raises(CourseError, match=r"none.mp4"):
            read(tmp_path / "none.mp4")


def test_a_truncated_animation_ends_early(tmp_path):
    content = write_gray(tmp_path / "video.gif", frame_times(2, 10), 2).read_bytes()
    (tmp_path / "cut.gif").write_bytes(content[: len(content) // 2])
    assert read_frames(tmp_path / "cut.gif", (0.25,))[0, 0, 0, 0] == 80
    with pytest.raises(CourseError, match=r"cut.gif"):
        read_frames(tmp_path / "cut.gif", (1.9,))


def test_wrong_calls_are_named(tmp_path):
    frames = np.zeros((2, 17, 16, 3), np.uint8)
    with pytest.raises(CourseError, match=r"16 × 17 pixels; expected even sides, or pass lossless=True"):
        write_video(tmp_path / "a.mp4", frames, (0, 1), 2)
    with pytest.raises(CourseError, match=r"choose .mp4 or .gif"):
        write_video(tmp_path / "a.avi", frames, (0, 1), 2)
    with pytest.raises(CourseError, match="hundredths of a second"):
        write_video(tmp_path / "a.gif", frames, (0, Fraction(1, 3)), 2)
    with pytest.raises(CourseError, match="times with the common denominator"):
        write_video(tmp_path / "a.mp4", frames, (0, Fraction(1, 2**31 - 1)), 2, lossless=True)
    with pytest.raises(ValueError, match="2 frames and 3 times"):
        write_video(tmp_path / "a.gif", frames, (0, 1, 2), 3)
    with pytest.raises(ValueError, match="3 frames and 2 times"):
        write_video(tmp_path / "a.gif", frames[[0, 1, 1]], (0, 1), 3)
    with pytest.raises(ValueError, match="expected uint8"):
        write_video(tmp_path / "a.gif", frames.astype(float), (0, 1), 3)
    for times in ((), (1, 2), (0, 0), (0, 5)):
        with pytest.raises(ValueError, match="expected increasing times"):
            write_video(tmp_path / "a.gif", frames, times, 3)
    assert list(tmp_path.iterdir()) == []
    path = write_gray(tmp_path / "b.gif", (0, 1), 2)
    for times in ((), (-1,)):
        with pytest.raises(ValueError, match="expected at least one, none below 0"):
            read_frames(path, times)


def test_a_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without_av(name, *rest, **options):
        if name == "av":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(CourseError, match="video files need the package av"):
        import_av()
