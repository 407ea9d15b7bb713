"""The part `recurrent`: layers equal PyTorch's, and the networks learn."""

import json
from pathlib import Path
from random import Random

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lessons.lesson_00_foundations.recurrent import reference
from lessons.lesson_00_foundations.recurrent.experiment import figures, recall, sentiment, train
from lessons.lesson_00_foundations.recurrent.experiment.arms import ARMS
from lessons.lesson_00_foundations.recurrent.experiment.claims import CLAIMS
from lessons.lesson_00_foundations.recurrent.experiment.exact import check_cells
from lessons.lesson_00_foundations.recurrent.experiment.gradients import gradient_through_time
from lessons.lesson_00_foundations.recurrent.model import (
    LAYER_TYPES,
    LSTM,
    RNN,
    Predictor,
    build_layer,
    rnn_width_of_equal_size,
)
from shared.course.context import RunContext
from shared.testing import quick_run

ROOT = Path(__file__).parents[3]
LENGTHS = torch.tensor([4, 6, 1, 3])


def equal_layers(layer_class, torch_class):
    """Return our layer and PyTorch's with the same random weights."""
    layer, torch_layer = layer_class(3, 5).double(), torch_class(3, 5, batch_first=True).double()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            getattr(torch_layer, f"{name}_l0").copy_(parameter.copy_(torch.randn_like(parameter) * 0.5))
    return layer, torch_layer


# ── Layers ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("layer_class", "torch_class"), [(RNN, nn.RNN), (LSTM, nn.LSTM)])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal lengths", "different lengths"])
def test_layers_by_hand_equal_pytorchs(layer_class, torch_class, lengths):
    layer, torch_layer = equal_layers(layer_class, torch_class)
    inputs = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)
    outputs, state = layer(inputs, lengths)
    if lengths is None:
        expected, last = torch_layer(inputs)
    else:
        packed, last = torch_layer(pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False))
        expected, _ = pad_packed_sequence(packed, batch_first=True)
    last = last if isinstance(last, tuple) else (last,)
    torch.testing.assert_close(outputs, expected, atol=1e-9, rtol=0)
    for one, other in zip(state, last, strict=True):
        torch.testing.assert_close(one, other[0], atol=1e-9, rtol=0)

    upstream = torch.randn_like(expected)
    torch_weights = [getattr(torch_layer, f"{name}_l0") for name, _ in layer.named_parameters()]
    gradients = torch.autograd.grad(outputs, [inputs, *layer.parameters()], upstream)
    torch_gradients = torch.autograd.grad(expected, [inputs, *torch_weights], upstream)
    for one, other in zip(gradients, torch_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)
        assert one.abs().max() > 1e-3


@pytest.mark.parametrize("layer_class", [RNN, LSTM])
def test_a_sequence_in_two_parts_gives_the_same_outputs(layer_class):
    layer, inputs = layer_class(3, 5), torch.randn(2, 7, 3)
    outputs, state = layer(inputs)
    first, between = layer(inputs[:, :4])
    second, after = layer(inputs[:, 4:], state=between)
    torch.testing.assert_close(torch.cat([first, second], dim=1), outputs)
    for one, other in zip(after, state, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("layer_class", [RNN, LSTM])
def test_padding_does_not_change_the_state(layer_class):
    layer, inputs = layer_class(3, 5), torch.randn(4, 6, 3)
    other = inputs.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        other[row, length:] = 99.0
    for one, two in zip(layer(inputs, LENGTHS)[1], layer(other, LENGTHS)[1], strict=True):
        assert torch.equal(one, two)


def test_errors_name_the_problem():
    with pytest.raises(ValueError, match="inputs have width 2; this layer expects 3"):
        LSTM(3, 5)(torch.zeros(1, 4, 2))
    with pytest.raises(ValueError, match="lengths run from 0 to 4; for 4 steps expected 1 to 4"):
        RNN(3, 5)(torch.zeros(2, 4, 3), torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="no recurrent layer 'gru'"):
        build_layer("gru", 3, 5)


@pytest.mark.parametrize("inputs", [1, 3, 16])
def test_all_layers_have_equally_many_parameters(inputs):
    sizes = {
        layer_type: sum(
            p.numel() for p in build_layer(layer_type, inputs, train.width(layer_type, inputs)).parameters()
        )
        for layer_type in LAYER_TYPES
    }
    assert max(sizes.values()) / min(sizes.values()) < 1.02
    assert rnn_width_of_equal_size(3, 32) > 32


def test_initial_weights_of_the_layers():
    orthogonal = RNN(3, 8, orthogonal=True).weight_hh
    torch.testing.assert_close(orthogonal @ orthogonal.T, torch.eye(8), atol=1e-5, rtol=0)
    forget_bias = (LSTM(3, 8).bias_ih + LSTM(3, 8).bias_hh)[8:16]
    assert forget_bias.shape == (8,) and (LSTM(3, 8).bias_ih[8:16] == 1).all()
    chrono = LSTM(3, 200, chrono_steps=100)
    steps = (chrono.bias_ih + chrono.bias_hh)[200:400].exp()
    assert steps.min() >= 1 and steps.max() <= 99 and 40 < steps.mean() < 60
    torch.testing.assert_close(chrono.bias_ih[:200], -chrono.bias_ih[200:400])


def test_the_exact_checks_hold_to_rounding():
    measured = check_cells(RunContext(seed=0, data="", device="cpu", folder=ROOT))
    assert len(measured) == 4
    assert max(measured.values()) < 1e-12


# ── The gradient through time ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_gradient_decays_by_the_recurrent_weight():
    """Where tanh is linear and W_hh is ½, each step back halves the gradient."""
    layer = RNN(3, 6)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.weight_hh.copy_(0.5 * torch.eye(6))
    norms = gradient_through_time(layer, torch.randn(4, 9, 3))
    torch.testing.assert_close(torch.tensor(norms), 0.5 ** torch.arange(8, -1, -1))
    assert layer.weight_hh.grad is None


def test_the_order_in_which_untrained_gradients_decay():
    inputs, _ = recall.sequences(8, 50, torch.Generator().manual_seed(0))
    norms = {}
    for layer_type in LAYER_TYPES:
        norms[layer_type] = gradient_through_time(build_layer(layer_type, 3, train.width(layer_type, 3)), inputs)[0]
    assert norms["rnn"] < 1e-5 < norms["lstm"] < norms["lstm, chrono"]
    assert norms["rnn, orthogonal"] > 100 * norms["rnn"]


# ── Learning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def context(tmp_path, name):
    return RunContext(seed=0, data="digits", device="cpu", folder=tmp_path / name)


def test_networks_learn_to_recall_a_bit(tmp_path):
    chrono = train.train_on_recall(context(tmp_path, "chrono"), steps=100, layer_type="lstm, chrono", lags=[5])
    assert chrono["accuracies"][0] > 0.7
    orthogonal = train.train_on_recall(
        context(tmp_path, "orthogonal"), steps=40, layer_type="rnn, orthogonal", lags=[8, 12]
    )
    assert min(orthogonal["accuracies"]) > 0.9
    assert orthogonal["accuracy_longest_lag"] == orthogonal["accuracies"][1]
    json.dumps([chrono, orthogonal])


def test_the_lstm_learns_negation(tmp_path):
    """After less than half of the usual steps it is above chance on unseen pairs, where word counts are not."""
    lstm = train.train_on_sentiment(context(tmp_path, "lstm"), steps=120, layer_type="lstm")
    bag = train.train_on_word_counts(context(tmp_path, "bag"), steps=120, bigrams=False)
    assert lstm["accuracy"] > 0.7
    assert bag["accuracy"] < 0.6
    assert {"accuracy_curve", "loss_curve", "accuracy_seen"} <= lstm.keys()


def test_the_lstm_learns_to_predict_a_series(tmp_path):
    measured = train.train_on_time_series(context(tmp_path, "series"), steps=40, layer_type="lstm")
    assert measured["error"] < 0.75 * measured["last_value_error"]
    assert measured["linear_error"] < 0.5 * measured["last_value_error"]
    json.dumps(measured)


def test_an_output_of_zero_predicts_the_last_value():
    model, values = Predictor("lstm", 4), torch.randn(2, 7)
    with torch.no_grad():
        outputs, _ = model.layer(values[..., None])
        torch.testing.assert_close(model(values) - values, model.head(outputs)[..., 0])
        extrapolation = model.extrapolate(values, 3)
        prediction = model(values)[:, -1:]
        torch.testing.assert_close(extrapolation[:, :1], prediction)
        torch.testing.assert_close(extrapolation[:, 1:2], model(torch.cat([values, prediction], dim=1))[:, -1:])


def test_arms_and_claims_fit_together():
    names = [arm.name for arm in ARMS]
    assert len(set(names)) == len(names) and {arm.part for arm in ARMS} == {"recurrent"}
    assert {claim.kind for claim in CLAIMS} == {"exact", "learns", "paper"}
    assert all(set(claim.arms) <= set(names) for claim in CLAIMS)
    assert set(figures.CAPTIONS) and all(name.startswith("recurrent_") for name in figures.CAPTIONS)
    # The vocabulary has every word of the figures' examples.
    vocabulary = sentiment.Vocabulary([text for text, _ in sentiment.sentences(2000, 0)])
    vocabulary.encode(list(figures.EXAMPLES))


# ── Pure Python ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_gradient_decays_with_distance():
    norms = {
        cell_class: reference.gradient_norms(cell_class(1, 8, Random(0)), 30, Random(1))
        for cell_class in (reference.RNNCell, reference.LSTMCell)
    }
    for values in norms.values():
        assert len(values) == 31 and values[0] < 0.1 * values[-1]
    assert norms[reference.RNNCell][0] < norms[reference.LSTMCell][0]


def test_the_reference_runs_with_nothing_installed():
    done = quick_run("lessons.lesson_00_foundations.recurrent.reference")
    assert "accuracy on 359 held-out digits" in done.stdout


def test_the_pure_python_classifier_learns():
    data = reference.digits.load().subset(list(range(200)))
    random = Random(0)
    losses = reference.fit(reference.RowClassifier(random), data, 40, random)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
