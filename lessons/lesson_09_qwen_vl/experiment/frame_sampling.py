"""Event recall of frame sampling: how many events of a clip can be told apart in the sampled frames, per visual token.

An event is recalled when its start lies between two sampled frames and no other event starts between the same two.
Without the first condition nothing changes from frame to frame; without the second, the order of two events is unknown.
No model can recall more from these frames alone.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from data.toybox.heldout import TEST_SEED
from data.toybox.video.clip import Clip
from data.toybox.video.frames import event_times, frame_times
from data.toybox.video.generation import clip_at
from lessons.lesson_09_qwen_vl.experiment.reader import TOKENS_PER_FRAME
from lessons.lesson_09_qwen_vl.model.sampling import frame_indices, smart_nframes
from shared.course.context import RunContext

FILE_RATE = 8.0
"""Frames per second of the video files from which frames are sampled."""
RATES = (0.5, 1.0, 2.0)
"""Frames per second of dynamic sampling; uniform sampling has equally many frames on average."""
LEAST_FRAMES, MOST_FRAMES = 4, 768
STEADY = (0.35, 0.65)
"""Events per second of *steady* clips, in which the number of events grows with the length. In all clips together, long
ones have no more events than short ones."""
Times = Sequence[Fraction]


def measure_sampling(context: RunContext, *, clips: int) -> dict:
    """Return the event recall of dynamic and uniform sampling at equal mean numbers of tokens.

    For each rate, `dynamic_<rate>` and `uniform_<rate>` are recalls, with `_tokens` (mean per clip), `_per_100_tokens`
    (recalled events per 100 tokens), and `_gap` (largest seconds between two frames). Names with "steady " in front are
    the same for steady clips. `events` names an upper bound: frames dense around the true events. Only the seed is
    used, as an offset of the clips' numbers.
    """
    first = context.seed * clips
    drawn = [clip_at("test", TEST_SEED, number) for number in range(first, first + clips)]
    steady = [clip for clip in drawn if STEADY[0] <= len(clip.events) / clip.seconds <= STEADY[1]]
    measured = _scores("events", drawn, [event_times(clip, 0.5, FILE_RATE) for clip in drawn])
    for prefix, chosen in (("", drawn), ("steady ", steady)):
        for rate in RATES:
            dynamic = [dynamic_times(clip, rate) for clip in chosen]
            counts = uniform_counts([len(times) for times in dynamic])
            uniform = [file_times(clip, count) for clip, count in zip(chosen, counts, strict=True)]
            measured |= _scores(f"{prefix}dynamic_{rate:g}", chosen, dynamic)
            measured |= _scores(f"{prefix}uniform_{rate:g}", chosen, uniform)
    return measured | {"steady_clips": len(steady)}


def dynamic_times(clip: Clip, rate: float) -> Times:
    """Return the times of frames at about `rate` frames per second, with the published rounding and limits."""
    total = len(frame_times(clip.seconds, FILE_RATE))
    frames = smart_nframes(total, FILE_RATE, fps=rate, min_frames=LEAST_FRAMES, max_frames=MOST_FRAMES)
    return file_times(clip, frames)


def file_times(clip: Clip, frames: int) -> Times:
    """Return the times of `frames` frames of a clip's file, evenly spaced; all of them when there are fewer."""
    times = frame_times(clip.seconds, FILE_RATE)
    return [times[index] for index in frame_indices(len(times), min(frames, len(times))).tolist()]


def uniform_counts(counts: Sequence[int]) -> list[int]:
    """Return numbers of frames with the same sum that differ by at most one."""
    total = sum(counts)
    return [total * (index + 1) // len(counts) - total * index // len(counts) for index in range(len(counts))]


def recalled_events(clip: Clip, times: Times) -> list[int]:
    """Return the numbers of the clip's events that are recalled from frames at some times."""
    places = [bisect_right(times, Fraction(event.start, 1000)) for event in clip.events]
    counts = Counter(places)
    return [index for index, place in enumerate(places) if 0 < place < len(times) and counts[place] == 1]


def _scores(name: str, clips: Sequence[Clip], sampled: Sequence[Times]) -> dict[str, float]:
    recalled = [recalled_events(clip, times) for clip, times in zip(clips, sampled, strict=True)]
    tokens = TOKENS_PER_FRAME * sum(map(len, sampled))
    gaps = [float(after - before) for times in sampled for before, after in pairwise(times)]
    count = sum(map(len, recalled))
    return {
        name: count / sum(len(clip.events) for clip in clips),
        f"{name}_tokens": tokens / len(clips),
        f"{name}_per_100_tokens": 100 * count / tokens,
        f"{name}_gap": max(gaps),
    }
