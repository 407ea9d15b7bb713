"""Arms match their names: corpora, streams of equal tokens, sequences, compression, pairs, and claims."""

from collections import defaultdict

import pytest
import torch

from data.toybox.heldout import HELD_OUT, mentions_held_out
from lessons.lesson_10_internvl.experiment import (
    data,
    deployment,
    evaluate,
    exact,
    haystack,
    positions,
    preferences,
    routing,
    train,
)
from lessons.lesson_10_internvl.experiment.arms import ARMS, ORDERS, PRESETS, TESTED
from lessons.lesson_10_internvl.experiment.base_model import IMAGE_TOKENS, starting_model
from lessons.lesson_10_internvl.experiment.lesson import LESSON
from lessons.lesson_10_internvl.model import STEPS
from shared.course.context import RunContext

SMALL = {"tokens": 1500, "images": 12, "texts": 6, "held_out": 12, "documents": 3, "episodes": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def start():
    return starting_model("cpu", router=True)


@pytest.fixture(scope="module")
def corpora(start):
    _, tokenizer = start
    return {
        data.TEXT: data.text_corpus(tokenizer, "train", 0, 20),
        data.MULTIMODAL: data.image_corpus(tokenizer, 0, 40, (1, 2), "cpu"),
    }


# ── Corpora ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_training_documents_hold_no_held_out_combination(start, corpora):
    _, tokenizer = start
    for documents in corpora.values():
        assert not any(mentions_held_out(tokenizer.decode(document.token_ids)) for document in documents)


def test_loss_masks_are_those_of_the_corpora(start, corpora):
    model, tokenizer = start
    for document in corpora[data.TEXT]:
        assert document.features is None and document.loss_mask == [False] + [True] * (len(document.token_ids) - 1)
    for document in corpora[data.MULTIMODAL]:
        assert document.token_ids[1 : 1 + IMAGE_TOKENS] == [model.config.image_token_id] * IMAGE_TOKENS
        predicted = [token for token, counts in zip(document.token_ids, document.loss_mask, strict=True) if counts]
        answers = tokenizer.decode(predicted).split("\n")[:-1]
        assert 1 <= len(answers) <= data.QUESTIONS and all(answer.startswith(" ") for answer in answers)


def test_orders_have_equal_tokens_and_the_fractions_of_their_names(corpora):
    stages = {order: data.stages_of(corpora, order, 9000, 0) for order in ORDERS.values()}
    totals = {order: sum(len(each.token_ids) for stage in parts for each in stage) for order, parts in stages.items()}
    assert all(9000 <= total < 9200 for total in totals.values())
    (mixed,), (images,), (first, last) = (stages[order] for order in ("mixed", "multimodal", "post-hoc"))
    assert all(document.features is not None for document in images)
    assert all(document.features is not None for document in first)
    assert all(document.features is None for document in last)
    # The same documents as in the mixture, in another order.
    assert sorted(map(id, mixed)) == sorted(map(id, [*first, *last]))
    text = sum(len(document.token_ids) for document in mixed if document.features is None)
    assert text / totals["mixed"] == pytest.approx(data.TEXT_FRACTION, abs=0.06)
    # Both corpora occur from the start.
    assert {document.features is None for document in mixed[:30]} == {True, False}


def test_batches_are_the_stream_in_order(corpora):
    documents = [*corpora[data.TEXT][:3], *corpora[data.MULTIMODAL][:6]]
    batches = data.DocumentBatches(documents, 4)
    assert len(batches) == 2
    batch = batches(0)
    assert len(batch.features) == 1 and batch.features.shape[1:] == (8, 8, 96)
    lengths = [len(document.token_ids) for document in documents[:4]]
    assert (batch.segments >= 0).sum(dim=1).tolist() == lengths
    assert batch.token_ids[3, : lengths[3]].tolist() == documents[3].token_ids
    assert not batch.loss_mask[batch.segments < 0].any()
    assert torch.equal(batches(2).token_ids, batch.token_ids)
    assert len(data.DocumentBatches(documents, 20)) == 1 and len(data.DocumentBatches(documents, 20)(0).token_ids) == 9


def test_rows_do_not_depend_on_their_batch(start, corpora):
    model, _ = start
    documents = [corpora[data.TEXT][0], *corpora[data.MULTIMODAL][:2], corpora[data.TEXT][1]]
    together = evaluate.batch_logits(model, data.collate(documents))
    for row, document in enumerate(documents):
        alone = evaluate.batch_logits(model, data.collate([document]))[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-4, rtol=1e-4)


def test_an_answer_is_exact_only_if_each_token_is(corpora):
    batch = data.collate(corpora[data.MULTIMODAL][:3])
    logits = torch.nn.functional.one_hot(batch.token_ids, 526).float().roll(-1, dims=1)
    assert evaluate.exact_rows(logits, batch).all()
    place = int(batch.loss_mask[1].nonzero()[-1])
    logits[1, place - 1] = 0
    logits[1, place - 1, 0] = 1
    assert evaluate.exact_rows(logits, batch).tolist() == [True, False, True]


@pytest.mark.parametrize("arm", ["mixed", "post-hoc", "multimodal"])
def test_an_order_trains_and_measures(arm, tmp_path):
    measured = train.train_corpora(RunContext(0, "toybox", "cpu", tmp_path / "arm"), order=arm, **SMALL)
    assert len(measured["loss_curves"]) == (2 if arm == "post-hoc" else 1)
    assert measured["tokens"] >= SMALL["tokens"] and (measured["text_tokens"] == 0) == (arm == "multimodal")
    for prefix in ("", "validation_"):
        assert 0 <= measured[f"{prefix}answers"] <= 1 and measured[f"{prefix}text_bits"] > 0
    assert 0.5 < measured["before_few_shot"] <= 1 and measured["before_no_shot"] < measured["before_few_shot"]


# ── Sequences of images ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_sequences_hold_held_out_combinations_in_test_only(split):
    for number in range(60):
        pair = haystack.needle(split, 0, number, 8)
        objects = [scene.objects[0] for scene in pair.scenes]
        assert objects[0].shape != objects[1].shape and objects[0].color != objects[1].color
        combinations = [(each.color, each.shape) for each in objects]
        assert any(each in HELD_OUT for each in combinations) == (split == "test")
        assert 0 <= pair.places[0] < pair.places[1] < 8
    with pytest.raises(ValueError, match="1 image cannot show 2 objects"):
        haystack.needle(split, 0, 0, 1)


def test_questions_name_the_earlier_and_the_later_object(start):
    _, tokenizer = start
    bank = haystack.Bank()
    group = haystack.sequences(tokenizer, bank, "train", 0, range(12), 6)
    assert {*group.types} == {"first", "last"}
    for row, (index, kind) in enumerate(zip(group.index.tolist(), group.types, strict=True)):
        shapes = [bank.scenes[image].objects[0].shape for image in index if bank.scenes[image].objects]
        answer = tokenizer.decode(group.token_ids[row][group.answer_mask[row]].tolist())
        assert len(shapes) == 2 and answer == f" {shapes[0 if kind == 'first' else 1]}\n"
    features = bank.features("cpu")
    assert len(features) == len(bank.scenes) and len(torch.unique(features.flatten(1), dim=0)) > 12


def test_a_reader_of_sequences_trains_and_measures(tmp_path):
    sizes = {"width": 32, "depth": 1, "heads": 2, "sequences": 8, "batch_size": 4, "held_out": 4}
    for kind in ("drawn", "one"):
        context = RunContext(0, "toybox", "cpu", tmp_path / kind)
        measured = positions.train_positions(
            context, steps=2, tested=(4, 16), test_steps=(0.5,), steps_of_images=kind, **sizes
        )
        assert measured["4_step"] == 1.0 and measured["16_step"] == 0.125
        assert measured["16_chosen"] == measured["16x0.125_all"]
        assert 0 <= measured["16x0.5_all"] <= 1 and "validation_4_chosen" in measured
        assert "validation_16x0.5_all" not in measured


def test_steps_of_images_are_drawn_per_sequence():
    recipe = positions.Recipe(batch_size=3, width=32, depth=1, heads=2)
    reader, bank = positions.Reader(recipe, "cpu"), haystack.Bank()
    groups = [haystack.sequences(reader.tokenizer, bank, "train", 0, range(6), images) for images in (2, 3)]
    batches = positions.SequenceBatches(groups, bank.features("cpu"), recipe, reader, 0)
    steps = [batches(index).image_steps for index in range(40)]
    for index, each in enumerate(steps):
        rows = each.unflatten(0, (3, 2 + index % 2))
        assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert torch.cat(steps).unique().tolist() == sorted(STEPS) and torch.equal(batches(3).image_steps, steps[3])
    fixed = positions.SequenceBatches(
        groups, bank.features("cpu"), positions.Recipe(steps_of_images="one", batch_size=3), reader, 0
    )
    assert (fixed(1).image_steps == 1).all()


# ── Router ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_compressed_documents_have_a_quarter_of_the_image_tokens(start, corpora):
    model, _ = start
    document, image = corpora[data.MULTIMODAL][0], model.config.image_token_id
    small = routing.compress(document, image)
    assert small.token_ids.count(image) == IMAGE_TOKENS // 4
    assert [each for each in small.token_ids if each != image] == [each for each in document.token_ids if each != image]
    assert sum(small.loss_mask) == sum(document.loss_mask)


def test_a_model_is_consistent_with_itself(start, corpora):
    model, _ = start
    documents = corpora[data.MULTIMODAL][:4]
    full, coarse, drawn = routing.PairedBatches(documents, 4, model.config.image_token_id, 0)(0)
    everything = torch.ones(4, dtype=torch.bool)
    assert drawn.dtype == torch.bool and len(drawn) == 4
    assert routing.consistency(model, model, full, full, everything).abs().max() < 1e-6
    assert routing.consistency(model, model, full, coarse, ~everything).max() > 1e-3


def test_half_of_the_images_for_the_router_are_empty(start, corpora):
    _, tokenizer = start
    documents = routing.with_empty_images(tokenizer, corpora[data.MULTIMODAL][:5], "train", 0, "cpu")
    assert [id(each) for each in documents[::2]] == [id(each) for each in corpora[data.MULTIMODAL][:5]]
    for document in documents[1::2]:
        text = tokenizer.decode([token for token in document.token_ids if token != 525])
        assert "is there a" in text and text.endswith("? no\n") and not mentions_held_out(text)


# ── Arms that continue the mixed model ────────────────────────────────────────────────────────────────────────────────


def test_the_router_and_preferences_continue_the_mixed_model(tmp_path):
    train.train_corpora(RunContext(0, "toybox", "cpu", tmp_path / "mixed"), order="mixed", **SMALL)
    sizes = {"consistency_steps": 2, "router_steps": 2, "images": 16, "batch_size": 4}
    measured = routing.train_router(RunContext(0, "toybox", "cpu", tmp_path / "router"), held_out=12, **sizes)
    assert measured["routed_0"] == measured["random_0"] == measured["full"]
    assert measured["routed_100"] == measured["random_100"] == measured["coarse"]
    assert 0 <= measured["saved"] <= 0.75
    measured = preferences.train_preferences(
        RunContext(0, "toybox", "cpu", tmp_path / "mpo"), steps=2, pairs=8, held_out=12, documents=3, episodes=2
    )
    assert measured["gain"] == measured["answers"] - measured["before_answers"]
    assert "text_bits" in measured and len(measured["wins_curve"]) == 2


# ── Preferences and deployment ────────────────────────────────────────────────────────────────────────────────────────


def test_pairs_differ_in_their_answer_only(start):
    model, tokenizer = start
    for pair in preferences.answer_pairs(model, tokenizer, 0, 12, (1, 1)):
        right, wrong = (tokenizer.decode(document.token_ids).split("?") for document in pair)
        assert right[0] == wrong[0] and right[1] != wrong[1]
        assert torch.equal(pair.preferred.features, pair.rejected.features)


def test_the_deployment_gives_the_same_answers(tmp_path):
    measured = deployment.measure_throughput(
        RunContext(0, "toybox", "cpu", tmp_path), requests=3, rounds=1, width=32, depth=1, side=4, new_tokens=4
    )
    assert measured["different_answers"] == 0
    assert min(measured["speed_up"], measured["speed_up_one_thread"], measured["two_processes_per_second"]) > 0


# ── Identities and claims ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_mechanism_is_exact(tmp_path):
    measured = {"exact": exact.check_mechanism(RunContext(0, "toybox", "cpu", tmp_path))}
    checked = [claim for claim in LESSON.claims if claim.kind == "exact" and claim.arms == ("exact",)]
    assert len(checked) == len(measured["exact"])
    for claim in checked:
        assert claim.measure(measured) <= claim.threshold, claim.name


def test_claims_read_what_arms_measure():
    """Every claim of every preset finds its numbers in what the arms of that preset return."""
    measured = {arm.name: defaultdict(lambda: 0.5) for arm in LESSON.arms}
    for claim in LESSON.claims:
        assert isinstance(claim.measure(measured), float)
    for preset in PRESETS:
        assert {claim.name for claim in LESSON.claims_of(preset, "toybox")} >= {"mixing-keeps-text", "last-position"}


def test_arms_to_be_compared_differ_in_one_setting():
    arms = {arm.name: arm for arm in ARMS}
    for preset in PRESETS:
        sizes = [{**arms[name].presets[preset], "order": None} for name in ORDERS]
        assert sizes[0] == sizes[1] == sizes[2]
    for preset in arms["fixed step"].presets:
        assert arms["fixed step"].presets[preset] == {**arms["v2pe"].presets[preset], "steps_of_images": "one"}
        assert arms["fine-tuning"].presets[preset] == {**arms["mpo"].presets[preset], "weights": (0.0, 0.0, 1.0)}
    assert TESTED[1:] == (4 * TESTED[0], 8 * TESTED[0])
