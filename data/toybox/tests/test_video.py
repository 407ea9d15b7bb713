"""Clips: pure, collision-free, without held-out combinations in training; their language, frames and times."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch

from data.toybox.heldout import SPLITS, is_held_out, mentions_held_out
from data.toybox.image import render_image
from data.toybox.raster import rasterize
from data.toybox.scene import WORLD, Scene, SceneObject
from data.toybox.video.arrays import render_frame, render_frames
from data.toybox.video.clip import (
    CHANGES,
    KINDS,
    Clip,
    Event,
    contains_held_out,
    events_of,
    history,
    is_outside,
    objects_at_time,
    outside,
    reverse_clip,
    scene_at_time,
)
from data.toybox.video.frames import event_times, frame_times, rasterize_frame, rasterize_frames, spread_times
from data.toybox.video.generation import ClipSettings, clip_at
from data.toybox.video.language import ACTIONS, action, clip_caption, is_described, parse_timeline, timeline
from data.toybox.video.tensors import normalize_frames, render_clip_tensors

CLIPS = [clip_at("train", 0, number) for number in range(120)]
CIRCLE = SceneObject("circle", "red", "small", "plain", 20, 64)
MOVED = CIRCLE._replace(x=60)
# The circle moves right from 1 s to 3 s and turns blue at 4 s; a star is still.
SIMPLE = Clip(
    6000,
    (CIRCLE, SceneObject("star", "green", "small", "plain", 100, 20)),
    (
        Event(0, "move", 1000, 3000, CIRCLE, MOVED),
        Event(0, "color", 4000, 4000, MOVED, MOVED._replace(color="blue")),
    ),
    0,
)


def test_a_clip_is_a_pure_function_of_split_seed_and_number():
    assert clip_at("train", 0, 7) == CLIPS[7]
    assert len({clip_at(split, seed, 7) for split in SPLITS for seed in (0, 1)}) == 6


def test_no_training_clip_holds_a_held_out_combination_at_any_time():
    for clip in [*CLIPS, *(clip_at("validation", 0, number) for number in range(60))]:
        assert not contains_held_out(clip)
        assert not mentions_held_out(clip_caption(clip, "full"))
    for number in range(60):
        clip = clip_at("test", 0, number)
        assert contains_held_out(clip) and is_held_out(scene_at_time(clip, clip.seconds / 2))


def test_a_held_out_combination_after_a_change_of_color_is_noticed():
    triangle = CIRCLE._replace(shape="triangle")
    change = Event(0, "color", 1000, 1000, triangle, triangle._replace(color="purple"))
    assert contains_held_out(Clip(2000, (triangle,), (change,), 0))
    assert not contains_held_out(Clip(2000, (triangle,), (), 0))


def test_events_follow_one_another_and_nothing_happens_in_the_middle():
    for clip in CLIPS:
        assert list(clip.events) == sorted(clip.events, key=lambda event: (event.start, event.end, event.target))
        for target, first in enumerate(clip.objects):
            events = events_of(clip, target)
            assert [first, *(event.after for event in events)] == history(clip, target)
            assert all(a.after == b.before and a.end + 250 <= b.start for a, b in pairwise(events))
        for event in clip.events:
            assert 250 <= event.start <= event.end <= clip.duration - 250
            assert event.end < clip.duration // 2 or event.start > clip.duration // 2
            assert (event.start == event.end) == (event.kind in CHANGES)
            assert is_outside(event.before) == (event.kind == "enter")
            assert is_outside(event.after) == (event.kind == "leave")


def test_objects_never_touch():
    for clip in CLIPS[:40]:
        for time in frame_times(clip.seconds, 4):
            boxes = [state.box for state in objects_at_time(clip, time) if state]
            for index, a in enumerate(boxes):
                for b in boxes[:index]:
                    assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_clips_vary_in_length_and_in_their_events():
    assert {event.kind for clip in CLIPS for event in clip.events} == set(KINDS)
    assert min(clip.seconds for clip in CLIPS) <= 3 and max(clip.seconds for clip in CLIPS) >= 15
    assert any(not clip.events for clip in CLIPS)
    gaps = [b.start - a.end for clip in CLIPS for a, b in pairwise(clip.events)]
    assert max(gaps) > 4000 and sum(gap < 500 for gap in gaps) > 20  # quiet phases and bursts
    only = ClipSettings(objects=(2, 2), seconds=(4, 4.5), kinds=("color",))
    for clip in (clip_at("train", 0, number, only) for number in range(20)):
        assert len(clip.objects) == 2 and 4 <= clip.seconds <= 4.5
        assert {event.kind for event in clip.events} <= {"color"}


def test_a_clip_played_backward_is_the_same_at_mirrored_times():
    for clip in CLIPS[:20]:
        backward = reverse_clip(clip)
        assert reverse_clip(backward) == clip
        assert scene_at_time(backward, clip.seconds / 2) == scene_at_time(clip, clip.seconds / 2)
        assert scene_at_time(backward, 0) == scene_at_time(clip, clip.seconds)


def test_the_state_at_a_time_is_exact():
    assert [objects_at_time(SIMPLE, time)[0].x for time in (0, 1, 1.5, 2, Fraction(9, 4), 3, 6)] == [
        *(20, 20, 30, 40),
        *(45, 60, 60),
    ]
    assert [objects_at_time(SIMPLE, time)[0].color for time in (3.999, 4)] == ["red", "blue"]
    assert SIMPLE.events[0].speed == 20 and SIMPLE.events[0].direction == "right"
    entrance = Event(0, "enter", 1000, 2000, outside(CIRCLE, "left"), CIRCLE)
    clip = Clip(4000, (outside(CIRCLE, "left"),), (entrance,), 0)
    assert objects_at_time(clip, 1) == (None,) and objects_at_time(clip, 1.5)[0].x == 3
    with pytest.raises(ValueError, match=r"time 6.5 s: expected 0 to 6 s"):
        scene_at_time(SIMPLE, 6.5)


def test_captions_and_timelines():
    assert clip_caption(SIMPLE) == "the circle moves right slowly, then the circle turns blue"
    assert clip_caption(SIMPLE, "full").startswith("a small plain green star at the top right and a small plain red")
    assert timeline(SIMPLE) == "1 s to 3 s: the circle moves right slowly\n4 s: the circle turns blue"
    assert clip_caption(SIMPLE._replace(events=())) == "nothing happens"
    together = SIMPLE.events[0]._replace(target=1, start=2000, end=2500)
    assert " slowly while the " in clip_caption(SIMPLE._replace(events=(SIMPLE.events[0], together)))
    for clip in CLIPS:
        lines = parse_timeline(timeline(clip))
        assert [(line.start, line.end) for line in lines] == [(event.start, event.end) for event in clip.events]
        assert all(is_described(line, clip) for line in lines)
        assert {action(event) for event in clip.events} <= set(ACTIONS)


def test_a_wrong_timeline_is_noticed():
    (line,) = parse_timeline("1.5 s to 3 s: the circle moves right slowly")
    assert not is_described(line, SIMPLE) and is_described(line, SIMPLE, tolerance=500)
    assert not is_described(line._replace(start=1000, action="moves left slowly"), SIMPLE)
    for text in ("1 s: the circle dances", "the circle moves right", "1 s to x s: the circle moves left"):
        with pytest.raises(ValueError, match="is no line"):
            parse_timeline(text)
    with pytest.raises(ValueError, match="ends before it starts"):
        parse_timeline("3 s to 1 s: the circle moves left")
    with pytest.raises(ValueError, match="no caption level 'long'"):
        clip_caption(SIMPLE, "long")


def test_times_are_exact_and_cover_the_clip():
    assert frame_times(Fraction(5, 2), 2) == (0, Fraction(1, 2), 1, Fraction(3, 2), 2)
    assert frame_times(1, 3) == (0, Fraction(1, 3), Fraction(2, 3)) and frame_times(0, 3) == (0,)
    assert spread_times(6, 3) == (1, 3, 5) and spread_times(5, 1) == (Fraction(5, 2),)
    dynamic = event_times(SIMPLE, 1, 8)
    assert len(frame_times(6, 1)) < len(dynamic) < len(frame_times(6, 8))
    assert Fraction(33, 8) in dynamic and Fraction(41, 8) not in dynamic and 5 in dynamic
    for call in (lambda: frame_times(1, 0), lambda: frame_times(-1, 1), lambda: spread_times(1, 0)):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_numpy_frames_equal_the_stdlib_frames_and_images():
    for clip in CLIPS[:2]:
        times = spread_times(clip.seconds, 4)
        frames = render_frames(clip, times, 32)
        assert frames.shape == (4, 32, 32, 3) and frames.dtype == np.uint8
        assert [frame.tobytes() for frame in frames] == rasterize_frames(clip, times, 32)
        middle = scene_at_time(clip, clip.seconds / 2)
        np.testing.assert_array_equal(render_frame(middle, 48), render_image(middle, 48))
        assert rasterize_frame(middle, 32) == rasterize(middle, 32)


@pytest.mark.parametrize("x, y", [(0, 64), (WORLD, 64), (64, 0), (64, WORLD), (-13, -13)])
def test_objects_are_cut_off_at_the_border(x, y):
    scene = Scene((CIRCLE._replace(x=x, y=y),), 0)
    frame = render_frame(scene, 64)
    assert frame.tobytes() == rasterize_frame(scene, 64)
    visible_area = (frame != render_frame(Scene((), 0), 64)).any(-1).sum()
    complete_area = (
        (render_frame(Scene((CIRCLE._replace(x=64),), 0), 64) != render_frame(Scene((), 0), 64)).any(-1).sum()
    )
    assert visible_area < 0.6 * complete_area and (visible_area > 0.4 * complete_area or x == -13)


def test_clips_become_tensors():
    times = [spread_times(clip.seconds, 3) for clip in CLIPS[:2]]
    frames = render_clip_tensors(CLIPS[:2], times)
    assert frames.shape == (2, 3, 3, 32, 32) and frames.dtype == torch.uint8
    np.testing.assert_array_equal(frames[1, 2].permute(1, 2, 0).numpy(), render_frames(CLIPS[1], times[1], 32)[2])
    assert normalize_frames(frames).shape == frames.shape and normalize_frames(frames).dtype == torch.float32
    with pytest.raises(ValueError, match="expected equal numbers"):
        render_clip_tensors(CLIPS[:2], [times[0], times[1][:2]])


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="no split 'dev'"):
        clip_at("dev", 0, 0)
    for seconds in ((1, 4), (4, 17), (8, 4), (2.2, 4)):
        with pytest.raises(ValueError, match=r"expected \(least, most\) from 2 to 16"):
            clip_at("train", 0, 0, ClipSettings(seconds=seconds))
    with pytest.raises(ValueError, match="expected at least one of move"):
        clip_at("train", 0, 0, ClipSettings(kinds=("jump",)))
