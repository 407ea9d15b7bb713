"""Arms match their names: ids, clips without held-out combinations, exact samplers, and claims that find numbers."""

from collections import Counter, defaultdict
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from data.toybox.heldout import TEST_SEED, is_held_out
from data.toybox.video.clip import Clip, contains_held_out, scene_at_time
from data.toybox.video.generation import clip_at
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_09_qwen_vl.experiment import boxes, clips, data, evaluate, exact, frame_sampling, reader, train
from lessons.lesson_09_qwen_vl.experiment.arms import ARMS, LENGTHS
from lessons.lesson_09_qwen_vl.experiment.lesson import LESSON
from lessons.lesson_09_qwen_vl.model.grounding import Box
from lessons.lesson_09_qwen_vl.model.positions import TEXT, mrope_ids
from lessons.lesson_09_qwen_vl.model.prompt import Prompt
from shared.course.context import RunContext

SIZES = {"width": 32, "depth": 1, "heads": 2}
SMALL = {"sizes": SIZES, "steps": 2, "clips": 8, "batch_size": 4, "held_out": 6}
FOUR = clips.Timing(4)


@pytest.fixture(scope="module")
def tokenizer():
    return load_language_model()[1]


def many(split, timing=FOUR, count=200, seed=0):
    return [clips.two_event_clip(split, seed, number, timing) for number in range(count)]


# ── Clips ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_clip_of_training_or_validation_holds_a_held_out_combination(split):
    assert not any(contains_held_out(clip) for clip in many(split))


def test_every_test_clip_starts_or_ends_with_a_held_out_combination():
    for clip in many("test"):
        assert is_held_out(scene_at_time(clip, 0)) or is_held_out(scene_at_time(clip, clip.seconds))


@pytest.mark.parametrize("timing", [clips.Timing(4), clips.Timing(16), clips.Timing(6, 750)])
def test_both_events_happen_between_different_frames(timing):
    for clip in many("train", timing, 60):
        states = [scene_at_time(clip, time).objects[0] for time in timing.times]
        changed = [one != other for one, other in pairwise(states)]
        assert sum(changed) == 2 and len(set(states)) == 3
        motion, change = sorted(clip.events, key=lambda event: event.kind != "move")
        assert motion.end - motion.start == timing.gap and motion.start // timing.gap != change.start // timing.gap


def test_a_longer_clip_holds_the_same_kinds_of_events_in_all_gaps():
    starts = Counter(event.start // 1000 for clip in many("train", clips.Timing(8), 400) for event in clip.events)
    assert set(starts) == set(range(7)) and min(starts.values()) > 60


def test_answers_follow_the_frames():
    for clip in many("validation", clips.Timing(6, 500), 60):
        first, last = (scene_at_time(clip, time).objects[0] for time in (0, clip.seconds))
        assert data.answer(clip, "first color") == first.color != data.answer(clip, "last color") == last.color
        shift = {"left": (-40, 0), "right": (40, 0), "up": (0, -40), "down": (0, 40)}[data.answer(clip, "direction")]
        assert (last.x - first.x, last.y - first.y) == shift
        times = clips.Timing(6, 500).times
        moved = next(time for time in times if scene_at_time(clip, time).objects[0][-2:] != first[-2:])
        colored = next(time for time in times if scene_at_time(clip, time).objects[0].color != first.color)
        assert data.answer(clip, "order") == ("move" if moved < colored else "color")
        assert data.answer(clip, "second") == str(int(moved))


def test_answers_are_balanced():
    directions = Counter(data.answer(clip, "direction") for clip in many("train", count=800))
    orders = Counter(data.answer(clip, "order") for clip in many("train", count=800))
    assert min(directions.values()) > 150 and min(orders.values()) > 350


def test_clips_need_three_frames():
    with pytest.raises(ValueError, match="two events need at least 3 frames"):
        clips.two_event_clip("train", 0, 0, clips.Timing(2))


# ── Questions and the reader ──────────────────────────────────────────────────────────────────────────────────────────


def test_questions_of_a_row_end_with_their_answers(tokenizer):
    questions = data.clip_questions(tokenizer, "train", 0, range(6), FOUR, tuple(data.QUESTIONS), "cpu")
    assert questions.bank.index.shape == (6, 4) and len(questions.bank.features) <= 18
    assert {*questions.first_types} <= {*data.QUESTIONS} and len({*questions.first_types}) > 1
    for row, number in enumerate(range(6)):
        clip = clips.two_event_clip("train", 0, number, FOUR)
        answers = tokenizer.decode(questions.token_ids[row][questions.answer_mask[row]].tolist()).split("\n")
        assert sorted(each.strip() for each in answers[:-1]) == sorted(
            data.answer(clip, each) for each in data.QUESTIONS
        )
        first = tokenizer.decode(questions.token_ids[row][questions.first_mask[row]].tolist())
        assert first.strip() == data.answer(clip, questions.first_types[row])


def test_equal_frames_share_their_features(tokenizer):
    clip = clips.two_event_clip("train", 0, 0, clips.Timing(16))
    bank = data.encode_clips([clip, clip], clips.Timing(16), "cpu")
    assert bank.features.shape == (3, 64, 96) and torch.equal(bank.index[0], bank.index[1])


def test_merge_order_puts_the_patches_of_a_token_together():
    numbered = torch.arange(64.0)[None, :, None].expand(1, 64, 2)
    assert reader.merge_order(numbered)[0, :8, 0].tolist() == [0, 1, 8, 9, 2, 3, 10, 11]


def test_ids_of_arms_differ_as_named():
    slow, fast, new = clips.Timing(6, 1000), clips.Timing(6, 500), clips.Timing(6, 750)
    steps = {name: [train.time_step(name, timing) for timing in (slow, fast, new)] for name in ("absolute", "frames")}
    assert steps == {"absolute": [2.0, 1.0, 1.5], "frames": [1.0, 1.0, 1.0]}
    assert train.time_step("1-d", slow) is None
    assert reader.sequence_ids(6, 1, 1.5)[1::16, 0].tolist()[:6] == [1, 2, 4, 5, 7, 8]
    assert reader.sequence_ids(4, 3, None)[:, 0].tolist() == list(range(68))
    assert reader.sequence_ids(16, 2, 1.0)[-1].tolist() == [18, 18, 18]


@pytest.mark.parametrize("positions", ["m-rope", "1-d", "absolute", "frames"])
def test_an_arm_trains_and_measures(positions, tmp_path):
    context = RunContext(0, "toybox", "cpu", tmp_path)
    timings = [(4, 1000), (4, 500)]
    measured = train.train_reader(
        context, positions=positions, trained=timings, tested=timings, types=("second", "order"), **SMALL
    )
    for timing in ("4x1000", "4x500"):
        assert 0 <= measured[f"{timing}_all"] <= 1 and 0 <= measured[f"{timing}_error"] <= 8
        assert f"validation_{timing}_all" in measured


def test_a_reader_learns_a_few_clips_by_heart(tokenizer):
    torch.manual_seed(0)
    recipe = train.Recipe(sizes=SIZES, batch_size=4)
    model = recipe.build(tokenizer)
    group = data.clip_questions(tokenizer, "train", 0, range(4), FOUR, ("direction", "last color"), "cpu")
    batch = train.ClipBatches([group], recipe, 0)(0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        logits = evaluate.question_logits(model, batch.features, batch.token_ids, batch.time_step, 522)
        loss = train.answer_loss(logits, batch.token_ids, batch.answer_mask).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_errors_of_seconds_are_bounded():
    assert evaluate.seconds_error("3", "5") == 2.0 and evaluate.seconds_error("4", "4") == 0.0
    assert evaluate.seconds_error("red", "4") == evaluate.seconds_error("99", "4") == evaluate.WORST_ERROR


def test_a_pretrained_reader_continues_text_as_lesson_0s_decoder(tokenizer):
    """Text has three equal ids, so M-RoPE changes nothing in the decoder's logits."""
    decoder, model = load_language_model()[0].eval(), train.Recipe().build(tokenizer).eval()
    token_ids = torch.randint(0, 522, (2, 40))
    ids = mrope_ids([TEXT] * 40, {}).expand(2, -1, -1)
    embeddings = model.embedding(token_ids)
    prompt = Prompt(embeddings, ids, torch.tensor([40, 40]), embeddings.new_zeros(0, *embeddings.shape))
    logits = model.output(model.hidden_states(embeddings=embeddings, prompt=prompt))
    torch.testing.assert_close(logits[..., :526], decoder(token_ids), rtol=1e-4, atol=1e-4)


def test_ids_of_the_longest_clips_fit_a_row_of_pretraining_only_with_mrope():
    longest, row = LENGTHS[-1], 224  # tokens per row in the training of lesson 0's decoder
    assert int(reader.sequence_ids(longest, 40, 1.0).max()) < row < int(reader.sequence_ids(longest, 0, None).max())


# ── Boxes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_objects_of_an_image_differ_in_color_and_shape():
    for scene in boxes.box_scenes("train", 0, 30, 2):
        assert len({each.color for each in scene.objects}) == len({each.shape for each in scene.objects}) == 2


def test_box_texts_are_read_back_and_scored():
    true = Box("red circle", (4.0, 8.0, 12.0, 16.0))
    texts = [
        boxes.box_text(true),
        boxes.box_text(Box("blue star", (4.0, 8.0, 12.0, 12.0))),
        '{"bbox_2d": [4, 8, 12, 16], "label": "red',
        "no box",
    ]
    scores = boxes.box_scores(texts, [true] * 4)
    assert scores == {"parsed": 0.75, "strict": 0.25, "iou": (1 + 0.5 + 1 + 0) / 4, "iou_half": 0.75}


def test_the_blind_baseline_is_the_best_constant_box():
    training = [Box("a", (0.0, 0.0, 10.0, 10.0))] * 3 + [Box("b", (20.0, 20.0, 30.0, 30.0))]
    assert boxes.blind_iou(training, training) == 0.75


def test_a_reader_writes_boxes(tokenizer, tmp_path):
    measured = train.train_boxes(RunContext(0, "toybox", "cpu", tmp_path), objects=(1, 2), **SMALL)
    assert 0 <= measured["parsed"] <= 1 and 0 < measured["blind_iou"] < 0.5 and len(measured["texts"]) == 6
    questions = boxes.box_questions(tokenizer, boxes.box_scenes("test", TEST_SEED, 4, 2), "cpu")
    text = tokenizer.decode(questions.token_ids[0][questions.answer_mask[0]].tolist()).split("\n")[0]
    assert boxes.box_scores([text], questions.boxes[:1])["iou"] == 1.0
    assert tokenizer.decode(questions.prompts[0].tolist()) == f"{questions.boxes[0].label}\n"


# ── Sampling ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_event_is_recalled_when_it_is_alone_between_two_frames():
    clip = next(clip for clip in (clip_at("test", 1, n) for n in range(99)) if len({e.start for e in clip.events}) > 2)
    starts = [Fraction(event.start, 1000) for event in clip.events]
    around = sorted({Fraction(0), *(start + Fraction(1, 8) for start in starts)})
    alone = [index for index, start in enumerate(starts) if starts.count(start) == 1]
    assert frame_sampling.recalled_events(clip, around) == alone
    assert frame_sampling.recalled_events(clip, [Fraction(0), clip.seconds]) == []
    assert frame_sampling.recalled_events(clip._replace(events=clip.events[:1]), [Fraction(0), clip.seconds]) == [0]


def test_samplers_have_equal_mean_tokens(tmp_path):
    measured = frame_sampling.measure_sampling(RunContext(0, "toybox", "cpu", tmp_path), clips=60)
    for rate in ("0.5", "1", "2"):
        tokens = [measured[f"{name}_{rate}_tokens"] for name in ("dynamic", "uniform")]
        assert tokens[1] == pytest.approx(tokens[0], rel=0.02)
    assert measured["dynamic_0.5"] < measured["dynamic_1"] < measured["dynamic_2"] < measured["events"]
    assert measured["dynamic_1_gap"] < measured["uniform_1_gap"]
    assert frame_sampling.uniform_counts([1, 2, 8, 9, 2]) == [4, 4, 5, 4, 5]


def test_dynamic_sampling_follows_the_length():
    short, long = (Clip(seconds * 1000, (), (), 0) for seconds in (2, 16))
    assert [len(frame_sampling.dynamic_times(clip, 1.0)) for clip in (short, long)] == [4, 16]


# ── Identities and claims ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_mechanism_is_exact(tmp_path):
    measured = exact.check_mechanism(RunContext(0, "toybox", "cpu", tmp_path))
    assert measured["mrope_ids"][1][-1] == 129 and measured["one_axis_ids"][1][-1] == 128 * 16 + 1
    limits = {claim.name: claim.threshold for claim in LESSON.claims if claim.kind == "exact"}
    for claim in LESSON.claims:
        if claim.kind == "exact":
            assert claim.measure({"exact": measured}) <= limits[claim.name], claim.name


def test_claims_read_what_arms_measure():
    """Every claim of every preset finds its numbers in what the arms of that preset return."""
    numbers = defaultdict(lambda: 0.5)
    measured = {arm.name: numbers for arm in LESSON.arms}
    for claim in LESSON.claims:
        assert isinstance(claim.measure(measured), float)
        assert claim.baseline is None or isinstance(claim.baseline(measured), float)


@pytest.mark.parametrize("names", [("m-rope", "1-d"), ("absolute time", "frame ids")])
def test_arms_to_be_compared_differ_in_their_positions(names):
    one, other = (next(arm for arm in ARMS if arm.name == name) for name in names)
    for preset in one.presets:
        assert {**one.presets[preset], "positions": None} == {**other.presets[preset], "positions": None}
        assert one.presets[preset]["positions"] != other.presets[preset]["positions"]
    assert LENGTHS[1:] == (2 * LENGTHS[0], 4 * LENGTHS[0])
