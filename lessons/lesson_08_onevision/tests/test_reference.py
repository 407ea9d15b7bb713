"""The pure-Python LLaVA-OneVision: its data, its stages, and a run with nothing installed."""

import json
from random import Random

import pytest

from data.toybox.video.clip import contains_held_out
from lessons.lesson_08_onevision import reference
from shared.stdlib.decoder import Decoder
from shared.stdlib.functional import cross_entropy
from shared.stdlib.optim import AdamW
from shared.stdlib.training import train
from shared.testing import quick_run

CLIPS = [reference.moving_clip("train", 0, number) for number in range(30)]


def small(seed=0):
    random = Random(seed)
    language_model = Decoder(len(reference.WORDS), 12, 1, 2, 16, random)
    return reference.OneVision(reference.Projector(reference.FEATURES, 12, random), language_model, random)


def answers(kind):
    examples = [reference.make_example(kind, clip) for clip in CLIPS]
    return [(reference.WORDS[one.question], reference.WORDS[one.answer]) for one in examples]


def test_every_clip_has_one_object_that_moves_left_or_right_all_the_time():
    for clip in CLIPS:
        (move,) = clip.events
        assert len(clip.objects) == 1 and move.kind == "move" and move.direction in ("left", "right")
        assert (move.start, move.end) == (0, clip.duration)
        assert not contains_held_out(clip)
    assert len({clip.events[0].direction for clip in CLIPS}) == 2


def test_the_answers_are_right_and_each_occurs():
    for clip, (question, answer) in zip(CLIPS, answers("image"), strict=True):
        assert question == "column" and answer == reference.COLUMNS[3 * clip.objects[0].x // 128]
    for kind in ("images", "video"):
        for clip, (question, answer) in zip(CLIPS, answers(kind), strict=True):
            assert (question, answer) == ("direction", f"{clip.events[0].direction}ward")
    assert {answer for _, answer in answers("image")} == set(reference.COLUMNS)
    assert {answer for _, answer in answers("video")} == {"leftward", "rightward"}


def test_features_mark_the_object():
    """The patch with the highest contrast holds the object's center, unless that is near the border of two patches."""
    for clip in CLIPS:
        first = clip.objects[0]
        features = reference.make_example("images", clip).features[0].tolist()
        contrasts = [sum(patch[:4]) for patch in features]
        row, column = divmod(contrasts.index(max(contrasts)), 2)
        if abs(first.x - 64) > 20:
            assert column == first.x // 64
        if abs(first.y - 64) > 20:
            assert row == first.y // 64


def test_all_types_of_input_take_about_equally_many_tokens():
    model, tokens = small(), {}
    for kind in reference.KINDS:
        example = reference.make_example(kind, CLIPS[0])
        tokens[kind] = model.visual_tokens(kind, example.features, reference.LAYOUT).shape[0]
    # 4 + 2 · (2 + 1), 2 · (4 + 1) and 8 · 1 + 1
    assert tokens == {"image": 10, "images": 10, "video": 9}


def test_the_first_stage_leaves_the_language_model_unchanged(monkeypatch):
    monkeypatch.setattr(reference, "BATCH", 2)
    model = small()

    def weights(part):
        return [list(weight.data) for weight in part.parameters().values()]

    language, projector, newline = weights(model.language_model), weights(model.projector), list(model.newline.data)
    reference.train_stage(model, reference.STAGES[0]._replace(steps=2), 0, 0)
    assert weights(model.language_model) == language
    assert weights(model.projector) != projector and list(model.newline.data) != newline
    reference.train_stage(model, reference.STAGES[1]._replace(steps=2), 0, 0)
    assert weights(model.language_model) != language


@pytest.mark.parametrize("kind", ["image", "video"])
def test_it_learns_a_few_examples_by_heart(kind):
    model, batch = small(), [reference.make_example(kind, clip) for clip in CLIPS[4:12]]
    assert len({one.answer for one in batch}) > 1

    def loss_at(step):
        logits = model(kind, [one.features for one in batch], [one.question for one in batch], reference.LAYOUT)
        return cross_entropy(logits, [one.answer for one in batch])

    losses = train(model, loss_at, AdamW(model.parameters().values(), 1e-2), 60)
    assert losses[-1] < 0.3 * losses[0]


def test_run_returns_what_it_prints_and_repeats_itself(capsys, monkeypatch):
    monkeypatch.setattr(reference, "BATCH", 2)
    stages = tuple(stage._replace(steps=1) for stage in reference.STAGES)
    first, again = (reference.run(stages=stages, held_out=3, seed=1) for _ in range(2))
    output = capsys.readouterr().out
    assert f"{first['parameters']:,} parameters" in output and "accuracy after onevision" in output
    assert (first["accuracy"], first["losses"]) == (again["accuracy"], again["losses"])
    json.dumps(first)


def test_no_clip_is_trained_before_the_last_stage():
    assert all("video" not in stage.kinds for stage in reference.STAGES[:-1]) and "video" in reference.STAGES[-1].kinds


def test_quick_run_works_with_nothing_installed():
    done = quick_run("lessons.lesson_08_onevision.reference")
    assert "accuracy after onevision" in done.stdout
