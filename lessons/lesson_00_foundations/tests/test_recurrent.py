"""Recurrent layers and what they are tried on: PyTorch's numbers, honest data, and something is learned."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from data.toybox.heldout import mentions_held_out
from lessons.lesson_00_foundations.recurrent import reference
from lessons.lesson_00_foundations.recurrent.experiment import arms, figures, opinions, recall, series
from lessons.lesson_00_foundations.recurrent.experiment.claims import ARMS, CLAIMS
from lessons.lesson_00_foundations.recurrent.experiment.exact import check_cells
from lessons.lesson_00_foundations.recurrent.model import (
    KINDS,
    LSTM,
    RNN,
    Predictor,
    make_layer,
    rnn_width_of_equal_size,
)

ROOT = Path(__file__).parents[3]
LENGTHS = torch.tensor([4, 6, 1, 3])


def pair(kind, torchs):
    """The same random weights in our layer and in PyTorch's."""
    ours, theirs = kind(3, 5).double(), torchs(3, 5, batch_first=True).double()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            getattr(theirs, f"{name}_l0").copy_(parameter.copy_(torch.randn_like(parameter) * 0.5))
    return ours, theirs


# ── Layers ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "torchs"), [(RNN, nn.RNN), (LSTM, nn.LSTM)])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equally long", "of different lengths"])
def test_layers_by_hand_are_pytorchs(kind, torchs, lengths):
    ours, theirs = pair(kind, torchs)
    inputs = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)
    shown, state = ours(inputs, lengths)
    if lengths is None:
        expected, last = theirs(inputs)
    else:
        packed, last = theirs(pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False))
        expected, _ = pad_packed_sequence(packed, batch_first=True)
    last = last if isinstance(last, tuple) else (last,)
    torch.testing.assert_close(shown, expected, atol=1e-9, rtol=0)
    for one, other in zip(state, last, strict=True):
        torch.testing.assert_close(one, other[0], atol=1e-9, rtol=0)

    upstream = torch.randn_like(expected)
    names = [name for name, _ in ours.named_parameters()]
    mine = torch.autograd.grad(shown, [inputs, *ours.parameters()], upstream)
    others = torch.autograd.grad(expected, [inputs, *(getattr(theirs, f"{name}_l0") for name in names)], upstream)
    for one, other in zip(mine, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)
        assert one.abs().max() > 1e-3


@pytest.mark.parametrize("kind", [RNN, LSTM])
def test_reading_in_two_sittings_is_reading_in_one(kind):
    layer, inputs = kind(3, 5), torch.randn(2, 7, 3)
    shown, state = layer(inputs)
    first, between = layer(inputs[:, :4])
    second, after = layer(inputs[:, 4:], state=between)
    torch.testing.assert_close(torch.cat([first, second], dim=1), shown)
    for one, other in zip(after, state, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", [RNN, LSTM])
def test_what_fills_up_changes_nothing(kind):
    layer, inputs = kind(3, 5), torch.randn(4, 6, 3)
    other = inputs.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        other[row, length:] = 99.0
    for one, two in zip(layer(inputs, LENGTHS)[1], layer(other, LENGTHS)[1], strict=True):
        assert torch.equal(one, two)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="inputs are 2 wide; this layer reads 3"):
        LSTM(3, 5)(torch.zeros(1, 4, 2))
    with pytest.raises(ValueError, match="lengths run from 0 to 4; with 4 steps they are 1 to 4"):
        RNN(3, 5)(torch.zeros(2, 4, 3), torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="no recurrent layer 'gru'"):
        make_layer("gru", 3, 5)


@pytest.mark.parametrize("inputs", [1, 3, 16])
def test_all_kinds_have_as_many_parameters(inputs):
    sizes = {
        kind: sum(p.numel() for p in make_layer(kind, inputs, arms.width(kind, inputs)).parameters()) for kind in KINDS
    }
    assert max(sizes.values()) / min(sizes.values()) < 1.02
    assert rnn_width_of_equal_size(3, 32) > 32


def test_how_the_kinds_start():
    rotation = RNN(3, 8, orthogonal=True).weight_hh
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(8), atol=1e-5, rtol=0)
    keep = (LSTM(3, 8).bias_ih + LSTM(3, 8).bias_hh)[8:16]
    assert keep.shape == (8,) and (LSTM(3, 8).bias_ih[8:16] == 1).all()
    slow = LSTM(3, 200, remember=100)
    steps = (slow.bias_ih + slow.bias_hh)[200:400].exp()
    assert steps.min() >= 1 and steps.max() <= 99 and 40 < steps.mean() < 60
    torch.testing.assert_close(slow.bias_ih[:200], -slow.bias_ih[200:400])


def test_the_mechanism_holds_to_rounding():
    measured = check_cells(seed=0, data="", device="cpu", folder=ROOT, resume=False)
    assert len(measured) == 4
    assert max(measured.values()) < 1e-12


# ── The gradient through time ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_gradient_fades_as_the_weights_say():
    """Where tanh is straight and W_hh halves, each step back leaves half."""
    layer = RNN(3, 6)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.weight_hh.copy_(0.5 * torch.eye(6))
    found = recall.gradient_through_time(layer, torch.randn(4, 9, 3))
    torch.testing.assert_close(torch.tensor(found), 0.5 ** torch.arange(8, -1, -1))
    assert layer.weight_hh.grad is None


def test_fresh_networks_fade_in_their_order():
    inputs, _ = recall.sequences(8, 50, torch.Generator().manual_seed(0))
    left = {}
    for kind in KINDS:
        left[kind] = recall.gradient_through_time(make_layer(kind, 3, arms.width(kind, 3)), inputs)[0]
    assert left["rnn"] < 1e-5 < left["lstm"] < left["lstm, slow"]
    assert left["rnn, orthogonal"] > 100 * left["rnn"]


# ── Data ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bit_stands_at_the_start_and_the_question_at_the_end():
    inputs, bits = recall.sequences(200, 9, torch.Generator().manual_seed(3))
    assert inputs.shape == (200, 10, 3)
    assert torch.equal(inputs[:, 0, 0], 2.0 * bits - 1)
    assert (inputs[:, 0, 1] == 1).all() and (inputs[:, 1:, 1] == 0).all()
    assert (inputs[:, -1, 2] == 1).all() and (inputs[:, :-1, 2] == 0).all()
    assert 60 < bits.sum() < 140
    # Nothing but the first step tells it: the noise is as often above zero after a 1 as after a 0.
    assert abs(torch.corrcoef(torch.stack([bits.float(), inputs[:, 1:, 0].mean(1)]))[0, 1]) < 0.2


def test_batches_are_a_function_of_their_number():
    batch_at = recall.batches(5, seed=1, batch_size=4)
    first = batch_at(3)
    batch_at(4)
    assert all(torch.equal(one, two) for one, two in zip(first, batch_at(3), strict=True))
    assert not torch.equal(first[0], batch_at(4)[0])
    assert not torch.equal(first[0], recall.batches(5, seed=2, batch_size=4)(3)[0])


def test_the_series_obeys_its_equation():
    """The slope between neighbors is what the equation says of the middle between them."""
    step, back = 0.1, 170
    values = series.integrate(0.9, 150.0, step)
    assert len(values) == 1501 and values[0] == 0.9
    for place in range(back + 1, 1500):
        now = (values[place] + values[place + 1]) / 2
        then = (values[place - back] + values[place + 1 - back]) / 2
        slope = (values[place + 1] - values[place]) / step
        assert slope == pytest.approx(0.2 * then / (1 + then**10) - 0.1 * now, abs=2e-4)
    # The past before the start was always the start.
    assert (values[1] - values[0]) / step == pytest.approx(0.2 * 0.9 / (1 + 0.9**10) - 0.1 * 0.9, rel=0.01)


def test_a_series_is_its_seeds():
    values = series.mackey_glass(60, seed=4)
    assert len(values) == 60
    assert values == series.mackey_glass(60, seed=4) != series.mackey_glass(60, seed=5)
    assert 0.2 < min(values) < 0.6 and 1.1 < max(values) < 1.5
    again = series.integrate(Random(4).uniform(0.6, 1.4), 500.0 + 59 * 6.0)
    assert values[-1] == again[-1] and values[-2] == again[-61]


def test_linear_prediction_finds_a_linear_law():
    values = [1.0, 2.0]
    for _ in range(60):
        values.append(1.6 * values[-1] - 0.9 * values[-2] + 0.1)
    found = series.windows(values, 4)
    guesses = series.linear_prediction(found[:30], found[30:])
    torch.testing.assert_close(guesses, found[30:, -1], atol=1e-4, rtol=0)
    assert series.relative_error(found[30:, -2], found[30:, -1], 1.0) > 0.01
    assert series.relative_error(torch.zeros(4), torch.full((4,), 3.0), 1.5) == pytest.approx(2.0)


def test_unseen_pairs_stay_out_of_training():
    assert len(opinions.UNSEEN) == 2 * len(opinions.GOOD + opinions.BAD)
    assert not opinions.UNSEEN & set(opinions.SEEN)
    seen, unseen = (opinions.sentences(2500, 0, unseen=unseen) for unseen in (False, True))
    pattern = [(n, o) for n in opinions.NEGATIONS for o in opinions.GOOD + opinions.BAD]

    def pairs(found):
        said = set()
        for text, _ in found:
            for negation, opinion in pattern:
                if any(f"{negation} {degree}{opinion}" in text for degree in ("", "very ", "really ", "quite ")):
                    said.add((negation, opinion))
        return said

    assert pairs(seen) == set(opinions.SEEN)
    assert pairs(unseen) == set(opinions.UNSEEN)
    parts = arms.read_opinions(seed=0)[::2]
    assert [len(part) for part in parts] == [3000, 1000, 1000]
    assert len({text for part in parts for text in part}) == 5000, "no sentence is both learned and tested"


def test_labels_say_what_the_sentence_says():
    for text, label in opinions.sentences(300, 3) + opinions.sentences(300, 3, unseen=True):
        words = text.split()
        good = sum(word in opinions.GOOD for word in words)
        assert good + sum(word in opinions.BAD for word in words) == 1
        negated = any(f"{negation} " in text for negation in opinions.NEGATIONS)
        assert label == (good != negated)
        assert not mentions_held_out(text)


def test_half_of_the_sentences_are_negated_and_half_praise():
    found = opinions.sentences(1500, 1)
    negated = sum(any(f"{negation} " in text for negation in opinions.NEGATIONS) for text, _ in found)
    assert 0.45 < negated / 1500 < 0.55 and 0.45 < sum(label for _, label in found) / 1500 < 0.55


def test_words_by_number():
    vocabulary = opinions.Vocabulary(["not bad", "a star"])
    numbers, lengths = vocabulary.encode(["a bad star", "not a"])
    assert vocabulary.words == ("", "a", "bad", "not", "star")
    assert numbers.tolist() == [[1, 2, 4], [3, 1, 0]] and lengths.tolist() == [3, 2]
    with pytest.raises(ValueError, match="not in the vocabulary of 4 words: moon"):
        vocabulary.encode(["a moon"])
    assert opinions.bigrams(["not so bad"]) == ["not so bad not_so so_bad"]


# ── Learning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings(tmp_path, name):
    return {"seed": 0, "data": "digits", "device": "cpu", "folder": tmp_path / name, "resume": False}


def test_it_learns_to_carry_a_bit(tmp_path):
    slow = arms.train_recall(**settings(tmp_path, "slow"), steps=100, kind="lstm, slow", lags=[5])
    assert slow["accuracies"][0] > 0.7
    rotation = arms.train_recall(**settings(tmp_path, "rotation"), steps=40, kind="rnn, orthogonal", lags=[8, 12])
    assert min(rotation["accuracies"]) > 0.9
    assert rotation["accuracy_furthest"] == rotation["accuracies"][1]
    json.dumps([slow, rotation])


def test_it_learns_what_negation_does(tmp_path):
    """Under half of the usual steps: words it never saw together, where counting stays a guess."""
    lstm = arms.train_sentiment(**settings(tmp_path, "lstm"), steps=120, kind="lstm")
    bag = arms.train_bag(**settings(tmp_path, "bag"), steps=120, pairs=False)
    assert lstm["accuracy"] > 0.7
    assert bag["accuracy"] < 0.6
    assert {"accuracy_curve", "loss_curve", "accuracy_seen"} <= lstm.keys()


def test_it_learns_to_predict(tmp_path):
    found = arms.train_series(**settings(tmp_path, "series"), steps=40, kind="lstm")
    assert found["error"] < 0.75 * found["last_value_error"]
    assert found["linear_error"] < 0.5 * found["last_value_error"]
    json.dumps(found)


def test_guessing_nothing_is_the_last_value():
    model, values = Predictor("lstm", 4), torch.randn(2, 7)
    with torch.no_grad():
        shown, _ = model.layer(values[..., None])
        torch.testing.assert_close(model(values) - values, model.head(shown)[..., 0])
        alone = model.go_on(values, 3)
        guess = model(values)[:, -1:]
        torch.testing.assert_close(alone[:, :1], guess)
        torch.testing.assert_close(alone[:, 1:2], model(torch.cat([values, guess], dim=1))[:, -1:])


def test_arms_and_claims_fit_together():
    names = [arm.name for arm in ARMS]
    assert len(set(names)) == len(names) and {arm.part for arm in ARMS} == {"recurrent"}
    assert {claim.kind for claim in CLAIMS} == {"exact", "learns", "paper"}
    assert all(set(claim.arms) <= set(names) for claim in CLAIMS)
    assert set(figures.CAPTIONS) and all(name.startswith("recurrent_") for name in figures.CAPTIONS)
    # What the pictures read, the vocabulary knows.
    vocabulary = opinions.Vocabulary([text for text, _ in opinions.sentences(2000, 0)])
    vocabulary.encode(list(figures.EXAMPLES))


# ── Pure Python ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_end_feels_less_of_what_lies_further_back():
    felt = {
        kind: reference.influence(kind(1, 8, Random(0)), 30, Random(1))
        for kind in (reference.RNNCell, reference.LSTMCell)
    }
    for values in felt.values():
        assert len(values) == 31 and values[0] < 0.1 * values[-1]
    assert felt[reference.RNNCell][0] < felt[reference.LSTMCell][0]


def test_the_reference_runs_with_nothing_installed():
    command = [sys.executable, "-S", "-m", "lessons.lesson_00_foundations.recurrent.reference", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "held out: 359 digits" in done.stdout


def test_the_pure_python_reader_learns():
    data = reference.digits.load().subset(list(range(200)))
    random = Random(0)
    losses = reference.fit(reference.Reader(random), data, 40, random)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
