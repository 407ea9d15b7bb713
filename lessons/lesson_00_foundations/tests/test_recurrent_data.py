"""The data of the part `recurrent`: the recall task, the time series and the sentences."""

from random import Random

import pytest
import torch

from data.toybox.heldout import mentions_held_out
from lessons.lesson_00_foundations.recurrent.experiment import recall, sentiment, time_series


def test_the_bit_is_at_the_start_and_the_query_at_the_end():
    inputs, bits = recall.sequences(200, 9, torch.Generator().manual_seed(3))
    assert inputs.shape == (200, 10, 3)
    assert torch.equal(inputs[:, 0, 0], 2.0 * bits - 1)
    assert (inputs[:, 0, 1] == 1).all() and (inputs[:, 1:, 1] == 0).all()
    assert (inputs[:, -1, 2] == 1).all() and (inputs[:, :-1, 2] == 0).all()
    assert 60 < bits.sum() < 140
    # Only the first step carries the bit: the noise does not correlate with it.
    assert abs(torch.corrcoef(torch.stack([bits.float(), inputs[:, 1:, 0].mean(1)]))[0, 1]) < 0.2


def test_batches_are_a_function_of_their_number():
    batch_at = recall.training_batches(5, seed=1, batch_size=4)
    first = batch_at(3)
    batch_at(4)
    assert all(torch.equal(one, two) for one, two in zip(first, batch_at(3), strict=True))
    assert not torch.equal(first[0], batch_at(4)[0])
    assert not torch.equal(first[0], recall.training_batches(5, seed=2, batch_size=4)(3)[0])


def test_the_series_satisfies_its_equation():
    """The difference of neighbors equals the equation's derivative at their midpoint."""
    step, delay = 0.1, 170
    values = time_series.integrate(0.9, 150.0, step)
    assert len(values) == 1501 and values[0] == 0.9
    for index in range(delay + 1, 1500):
        current = (values[index] + values[index + 1]) / 2
        delayed = (values[index - delay] + values[index + 1 - delay]) / 2
        derivative = (values[index + 1] - values[index]) / step
        assert derivative == pytest.approx(0.2 * delayed / (1 + delayed**10) - 0.1 * current, abs=2e-4)
    # Before the start the series is constant.
    assert (values[1] - values[0]) / step == pytest.approx(0.2 * 0.9 / (1 + 0.9**10) - 0.1 * 0.9, rel=0.01)


def test_a_series_depends_on_its_seed_alone():
    values = time_series.mackey_glass(60, seed=4)
    assert len(values) == 60
    assert values == time_series.mackey_glass(60, seed=4) != time_series.mackey_glass(60, seed=5)
    assert 0.2 < min(values) < 0.6 and 1.1 < max(values) < 1.5
    again = time_series.integrate(Random(4).uniform(0.6, 1.4), 500.0 + 59 * 6.0)
    assert values[-1] == again[-1] and values[-2] == again[-61]


def test_linear_prediction_recovers_a_linear_recurrence():
    values = [1.0, 2.0]
    for _ in range(60):
        values.append(1.6 * values[-1] - 0.9 * values[-2] + 0.1)
    windows = time_series.windows(values, 4)
    predictions = time_series.linear_prediction(windows[:30], windows[30:])
    torch.testing.assert_close(predictions, windows[30:, -1], atol=1e-4, rtol=0)
    assert time_series.relative_error(windows[30:, -2], windows[30:, -1], 1.0) > 0.01
    assert time_series.relative_error(torch.zeros(4), torch.full((4,), 3.0), 1.5) == pytest.approx(2.0)


def test_unseen_pairs_stay_out_of_training():
    assert len(sentiment.UNSEEN_NEGATIONS) == 2 * len(sentiment.GOOD + sentiment.BAD)
    assert not sentiment.UNSEEN_NEGATIONS & set(sentiment.SEEN_NEGATIONS)
    with_seen, with_unseen = (sentiment.sentences(2500, 0, unseen=unseen) for unseen in (False, True))
    pattern = [(n, o) for n in sentiment.NEGATIONS for o in sentiment.GOOD + sentiment.BAD]

    def pairs(sentences):
        present = set()
        for text, _ in sentences:
            for negation, opinion in pattern:
                if any(f"{negation} {degree}{opinion}" in text for degree in ("", "very ", "really ", "quite ")):
                    present.add((negation, opinion))
        return present

    assert pairs(with_seen) == set(sentiment.SEEN_NEGATIONS)
    assert pairs(with_unseen) == set(sentiment.UNSEEN_NEGATIONS)
    parts = [split.texts for split in sentiment.load_splits(seed=0)]
    assert [len(part) for part in parts] == [3000, 1000, 1000]
    assert len({text for part in parts for text in part}) == 5000, "a sentence is in both training and test"


def test_labels_follow_opinion_and_negation():
    for text, label in sentiment.sentences(300, 3) + sentiment.sentences(300, 3, unseen=True):
        words = text.split()
        good = sum(word in sentiment.GOOD for word in words)
        assert good + sum(word in sentiment.BAD for word in words) == 1
        negated = any(f"{negation} " in text for negation in sentiment.NEGATIONS)
        assert label == (good != negated)
        assert not mentions_held_out(text)


def test_half_of_the_sentences_are_negated_and_half_are_praise():
    drawn = sentiment.sentences(1500, 1)
    negated = sum(any(f"{negation} " in text for negation in sentiment.NEGATIONS) for text, _ in drawn)
    assert 0.45 < negated / 1500 < 0.55 and 0.45 < sum(label for _, label in drawn) / 1500 < 0.55


def test_the_vocabulary_maps_words_to_token_ids():
    vocabulary = sentiment.Vocabulary(["not bad", "a star"])
    token_ids, lengths = vocabulary.encode(["a bad star", "not a"])
    assert vocabulary.words == ("", "a", "bad", "not", "star")
    assert token_ids.tolist() == [[1, 2, 4], [3, 1, 0]] and lengths.tolist() == [3, 2]
    with pytest.raises(ValueError, match="not in the vocabulary of 4 words: moon"):
        vocabulary.encode(["a moon"])
    assert sentiment.add_bigrams(["not so bad"]) == ["not so bad not_so so_bad"]
