"""Arms match their names: stories and questions, equal budgets and steps, disjoint splits, and claims."""

from collections import Counter, defaultdict
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from data.toybox.heldout import HELD_OUT
from data.toybox.video.clip import contains_held_out, events_of, objects_at_time, reverse_clip
from lessons.lesson_08_onevision.experiment import data, evaluate, exact, train
from lessons.lesson_08_onevision.experiment.arms import ARMS, TRAIN
from lessons.lesson_08_onevision.experiment.lesson import LESSON
from shared.course.context import RunContext

ONE, TWO = (1, 1), (2, 2)
STORIES = [data.training_story(0, number, (1, 2)) for number in range(80)]
KINDS = tuple(data.FRAME_COUNTS)
SMALL = {"first_steps": 1, "mix_steps": 3, "batch_size": 2, "held_out": 12}


@pytest.fixture(scope="module")
def source():
    model, template = train.starting_model("cpu")
    return data.DataSource(model, template)


# ── Stories and questions ─────────────────────────────────────────────────────────────────────────────────────────────


def test_in_a_story_every_object_has_its_own_shape_and_moves_once():
    for clip in STORIES:
        assert len({one.shape for one in clip.objects}) == len(clip.objects) <= 2
        assert len(clip.events) == len(clip.objects)
        assert all(len(events_of(clip, target, "move")) == 1 for target in range(len(clip.objects)))
        assert not contains_held_out(clip)
    assert {len(clip.objects) for clip in STORIES} == {1, 2}


def test_directions_are_equally_likely_in_training():
    directions = Counter(
        events_of(data.training_story(0, number, ONE), 0, "move")[0].direction for number in range(200)
    )
    assert set(directions) == {"left", "right", "up", "down"} and max(directions.values()) < 75


def test_no_story_is_in_two_splits_and_test_stories_hold_an_unseen_combination():
    stories = {
        split: [next(data.stories_from(split, 0, number, TWO)) for number in range(40)]
        for split in ("train", "validation", "test")
    }
    for one, other in pairwise([*stories.values(), stories["train"]]):
        assert not set(one) & set(other)
    for clip in stories["test"]:
        middle = objects_at_time(clip, clip.seconds / 2)
        assert any(state and (state.color, state.shape) in HELD_OUT for state in middle)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_follow_from_the_story(kind):
    for clip in STORIES:
        middle = {state.shape: state for state in objects_at_time(clip, clip.seconds / 2) if state}
        for question in data.questions_about(clip, kind):
            assert question.type in data.QUESTION_TYPES[kind] and question.shape in question.text
            events = [event for event in clip.events if event.before.shape == question.shape]
            if question.type == "direction":
                (move,) = [event for event in events if event.kind == "move"]
                before, after = (move.before.x, move.before.y), (move.after.x, move.after.y)
                axis = question.answer in ("up", "down")
                assert (after[axis] > before[axis]) == (question.answer in ("right", "down"))
            else:
                assert question.answer == getattr(middle[question.shape], question.type)


def test_the_reversed_story_has_the_other_answer_to_questions_of_direction():
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    compared = 0
    for clip in STORIES:
        answers, backward = (
            {one.text: one.answer for one in data.questions_about(story, "video") if one.type == "direction"}
            for story in (clip, reverse_clip(clip))
        )
        assert answers.keys() == backward.keys()
        assert all(backward[text] == opposite[answer] for text, answer in answers.items())
        compared += len(answers)
    assert compared > 20


@pytest.mark.parametrize("objects", [ONE, TWO])
def test_directions_are_balanced_in_the_evaluation(objects):
    pairs = [data.question_of_number("validation", 0, number, "video", objects) for number in range(300)]
    directions = Counter(question.answer for _, question in pairs if question.type == "direction")
    assert set(directions) == {"left", "right", "up", "down"} and max(directions.values()) < 35
    types = Counter(question.type for _, question in pairs)
    assert len(set(types.values())) == 1 and set(types) == set(data.QUESTION_TYPES["video"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_question_is_tested_with_every_number_of_frames(source, kind):
    for count in (3, 24):
        sets, questions = data.evaluation_rows(source, kind, "validation", 0, count)
        assert len(sets) == len(data.FRAME_COUNTS[kind]) and len(questions) == sum(len(rows.token_ids) for rows in sets)
        per_set = len(questions) // len(sets)
        for start in range(0, len(questions), per_set):
            types = Counter(question.type for question in questions[start : start + per_set])
            assert set(types) == set(data.QUESTION_TYPES[kind]) and len(set(types.values())) == 1


def test_frames_are_spread_from_the_start_to_the_end():
    clip = STORIES[0]
    assert data.times_of(clip, 1) == [clip.seconds / 2]
    times = data.times_of(clip, 8)
    assert times[0] == 0 and times[-1] == clip.seconds
    assert {after - before for before, after in pairwise(times)} == {Fraction(clip.seconds, 7)}


# ── Inputs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_input_fits_into_the_budget_and_videos_use_it():
    counts = {frames: sum(data.visual_counts(frames)) for kind in KINDS for frames in data.FRAME_COUNTS[kind]}
    assert counts == {1: 65, 2: 74, 4: 68, 8: 73} and max(counts.values()) <= data.BUDGET
    assert data.visual_counts(0) == [] and data.encoded_visuals(torch.zeros(2, 0, 64, 1)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_as_many_placeholders_as_the_model_has_embeddings(source, kind):
    for rows in data.training_rows(source, kind, 0, range(6), 4):
        placeholders = rows.token_ids == source.model.placeholders.image
        frames = rows.features.shape[1]
        assert frames in data.FRAME_COUNTS[kind]
        assert (placeholders.sum(dim=1) == sum(data.visual_counts(frames))).all()
        assert not (placeholders & rows.loss_mask).any() and rows.loss_mask.any(dim=1).all()
        loss = train.story_loss(source.model, rows)
        assert torch.isfinite(loss.mean())


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_asks_for_a_direction_where_frames_show_one_and_never_the_same_twice(kind):
    types, places = Counter(), set()
    for number, clip in enumerate(STORIES):
        drawn = data.draw_questions(clip, kind, 2, data.stream(0, number, data.PURPOSE))
        assert len(drawn) == len(set(drawn)) == 2
        types.update(question.type for question in drawn)
        places.update(place for place, question in enumerate(drawn) if question.type == "direction")
        assert [question.type == "direction" for question in drawn].count(True) >= (kind != "image")
    assert set(types) == set(data.QUESTION_TYPES[kind]) and places == (set() if kind == "image" else {0, 1})


def test_the_control_gets_one_frame_and_the_same_questions(source):
    several = data.training_rows(source, "images", 0, range(6), 2)
    (one,) = data.training_rows(source, "images", 0, range(6), 2, counts=(1,))
    assert one.features.shape[:2] == (6, 1) and {rows.features.shape[1] for rows in several} == {2, 4}
    assert one.loss_mask.sum() == sum(rows.loss_mask.sum() for rows in several)


def test_the_blind_baseline_has_no_visual_tokens(source):
    blind = data.DataSource(source.model, source.template, use_visuals=False)
    (rows,) = data.training_rows(blind, "video", 0, range(3), 2)
    assert not (rows.token_ids == source.model.placeholders.image).any() and rows.features.numel() == 0
    assert torch.isfinite(train.story_loss(source.model, rows).mean())


def test_the_answer_is_exact_only_if_every_token_is(source):
    """Greedy generation and one pass over the correct tokens agree on which answers are exact."""
    from shared.transformer import Sampling

    sets, questions = data.evaluation_rows(source, "image", "validation", 0, 12)
    # Every second conversation gets another story's features, so that some answers are wrong.
    features = torch.where(
        torch.arange(12)[:, None, None, None] % 2 == 0, sets[0].features, sets[0].features.roll(1, 0)
    )
    rows = sets[0]._replace(features=features)
    exact_answers = evaluate.answered_exactly(source.model, rows, "cpu").tolist()
    end = source.template.tokenizer.special_tokens[source.template.end]
    prompts = [row[: int(mask.nonzero()[0])] for row, mask in zip(rows.token_ids, rows.loss_mask, strict=True)]
    visuals = [data.encoded_visuals(rows.features[row : row + 1]) for row in range(len(questions))]
    generated = source.model.answer(prompts, visuals, Sampling(8, stop_token_ids=[end]))
    texts = [source.template.tokenizer.decode(token_ids[:-1].tolist()) for token_ids in generated]
    assert exact_answers == [text == one.answer for text, one in zip(texts, questions, strict=True)]
    assert 0 < sum(exact_answers) < len(exact_answers)


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stage_mixes_the_types_in_their_proportions():
    planned = train.plan_stage("mix", {"image": 1, "images": 2, "video": 1}, 40)
    assert Counter(planned.inputs) == {"image": 10, "images": 20, "video": 10}
    assert train.plan_stage("first", {"video": 1}, 3).inputs == ("video",) * 3


def test_batches_have_the_planned_type_and_use_all_numbers_of_frames(source):
    recipe = train.Recipe(batch_size=2)
    planned = train.plan_stage("mix", {"image": 1, "images": 2, "video": 1}, 8)
    sets = {kind: data.training_rows(source, kind, 0, range(8), 2) for kind in KINDS}
    batches = train.MixedBatches(sets, planned, recipe, 0)
    frames = [batches(step).features.shape[1] for step in range(8)]
    for kind, count in zip(planned.inputs, frames, strict=True):
        assert count in data.FRAME_COUNTS[kind]
    assert Counter(frames) == {1: 2, 2: 2, 4: 2, 8: 2}


@pytest.mark.parametrize("mix", [{"image": 1, "images": 1, "video": 1}, {"video": 1}])
def test_an_arm_trains_and_measures(tmp_path, mix):
    measured = train.train_onevision(RunContext(0, "toybox", "cpu", tmp_path), mix=mix, **SMALL)
    for kind in KINDS:
        assert 0 <= measured[f"{kind}_all"] <= 1 and f"validation_{kind}_all" in measured
    assert measured["frozen_changed"] == 0.0 and 0 <= measured["before_image_all"] <= 1
    assert {"video_direction", "images_direction", "mean", "mix_loss_curve"} <= measured.keys()


def test_a_blind_arm_trains_and_measures(tmp_path):
    measured = train.train_onevision(RunContext(0, "toybox", "cpu", tmp_path), use_visuals=False, **SMALL)
    assert 0 <= measured["mean"] <= 1


def test_a_model_learns_questions_of_motion_by_heart(source):
    model, template = train.starting_model("cpu")
    own = data.DataSource(model, template)
    (rows,) = data.training_rows(own, "video", 0, range(2), 2)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], 2e-3)
    losses = []
    for _ in range(25):
        loss = train.story_loss(model, rows).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


# ── Identities and claims ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_mechanism_is_exact(tmp_path):
    measured = exact.check_mechanism(RunContext(0, "toybox", "cpu", tmp_path))
    assert measured.pop("count_mismatches") == 0 and measured.pop("over_budget") == 0
    assert measured.pop("pooling_difference") < 1e-12 and max(measured.values()) < 1e-5


def test_claims_read_what_arms_measure():
    """Every claim of every preset finds its numbers in what the arms of that preset return."""
    numbers = defaultdict(lambda: 0.5)
    measured = {arm.name: numbers for arm in LESSON.arms}
    for claim in LESSON.claims:
        assert isinstance(claim.measure(measured), float)
        assert claim.baseline is None or isinstance(claim.baseline(measured), float)


def test_trained_arms_differ_only_in_the_types_of_input():
    arms = [arm for arm in ARMS if arm.function == TRAIN]
    assert len(arms) == 7
    for preset in ("smoke", "cpu", "full", "gpu"):
        settings = [
            {
                name: value
                for name, value in arm.presets[preset].items()
                if name not in ("first", "mix", "use_visuals", "one_frame")
            }
            for arm in arms
            if preset in arm.presets
        ]
        assert all(other == settings[0] for other in settings)
    mixes = {arm.name: arm.presets["full"]["mix"] for arm in arms}
    assert mixes["image + images"] == mixes["image + one frame"] and "video" not in mixes["image + images"]
    assert mixes["image specialist"].keys() == {"image"}
