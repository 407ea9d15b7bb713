"""The claims of the part `recurrent`."""

from lessons.lesson_00_foundations.recurrent.experiment.arms import (
    EXACT,
    LAGS,
    RECALL_CHRONO,
    RECALL_LSTM,
    RECALL_ORTHOGONAL,
    RECALL_RNN,
    SENTIMENT_BIGRAMS,
    SENTIMENT_LSTM,
    SENTIMENT_RNN,
    SENTIMENT_WORDS,
    SERIES_LSTM,
    SERIES_RNN,
)
from shared.course.claims import Measure, difference, number
from shared.course.lesson import Claim

DISTANT = 50
"""Number of steps before the end at which the gradient of an untrained network is compared."""


def gradient_left(arm: str) -> Measure:
    """Return a measure of the gradient norm `DISTANT` steps before the end, relative to the norm at the end."""
    return lambda arms: arms[arm]["gradient_untrained"][-1 - DISTANT]


CLAIMS = (
    Claim(
        "recurrent-rnn-equals-pytorch",
        "exact",
        "The plain recurrent layer is PyTorch's nn.RNN: outputs, last state and every gradient, in batches of "
        "sequences of different lengths too (largest difference, float64).",
        "recurrent/model.py",
        (EXACT,),
        number(EXACT, "rnn_difference"),
        1e-9,
        "error",
        at_least=False,
    ),
    Claim(
        "recurrent-lstm-equals-pytorch",
        "exact",
        "The LSTM is PyTorch's nn.LSTM, likewise.",
        "recurrent/model.py",
        (EXACT,),
        number(EXACT, "lstm_difference"),
        1e-9,
        "error",
        at_least=False,
    ),
    Claim(
        "recurrent-reference-equals-model",
        "exact",
        "The pure-Python cells are the PyTorch ones: states and gradients (largest difference, float64).",
        "recurrent/reference.py",
        (EXACT,),
        number(EXACT, "reference_difference"),
        1e-9,
        "error",
        at_least=False,
    ),
    Claim(
        "recurrent-jacobians",
        "exact",
        "The gradient through time of the plain layer is a product of Jacobians, one per step (largest difference, "
        "float64).",
        "Bengio et al. 1994, section III",
        (EXACT,),
        number(EXACT, "jacobian_difference"),
        1e-9,
        "error",
        at_least=False,
    ),
    Claim(
        "recurrent-gradient-vanishes",
        "paper",
        f"So it fades: in a fresh plain network, hardly anything is felt of the state {DISTANT} steps before (share of "
        "the gradient left).",
        "Bengio et al. 1994, section III",
        (RECALL_RNN,),
        gradient_left(RECALL_RNN),
        1e-6,
        "error",
        at_least=False,
    ),
    Claim(
        "recurrent-chrono-keeps-gradient",
        "paper",
        "In an LSTM whose gates start slow much of it stays (share of the gradient left).",
        "Hochreiter & Schmidhuber 1997, section 3; arXiv:1804.11188",
        (RECALL_CHRONO, RECALL_RNN),
        gradient_left(RECALL_CHRONO),
        0.1,
        "error",
        baseline=gradient_left(RECALL_RNN),
        baseline_name="plain network",
    ),
    Claim(
        "recurrent-recall",
        "paper",
        f"That LSTM recalls a bit after {LAGS[-1]} steps of noise; a plain network of equal size, trained alike, can "
        "only guess.",
        "Hochreiter & Schmidhuber 1997, section 5",
        (RECALL_CHRONO, RECALL_RNN),
        number(RECALL_CHRONO, "accuracy_longest_lag"),
        0.75,
        baseline=number(RECALL_RNN, "accuracy_longest_lag"),
        baseline_name="plain network",
    ),
    Claim(
        "recurrent-recall-lstm",
        "paper",
        "The usual start of an LSTM (forget bias 1) has less of a lead over the plain network (mean accuracy over all "
        "lags, difference).",
        "Hochreiter & Schmidhuber 1997, section 5",
        (RECALL_LSTM, RECALL_RNN),
        difference(RECALL_LSTM, RECALL_RNN, "mean_accuracy"),
        0.0,
        "points",
        presets=(),
    ),
    Claim(
        "recurrent-recall-orthogonal",
        "paper",
        "Gates are not the only way: a plain network whose recurrence starts as a rotation recalls the bit too (after "
        f"{LAGS[-1]} steps).",
        "arXiv:1312.6120; arXiv:1504.00941",
        (RECALL_ORTHOGONAL,),
        number(RECALL_ORTHOGONAL, "accuracy_longest_lag"),
        0.95,
    ),
    Claim(
        "recurrent-time-series",
        "learns",
        "The LSTM predicts the next value of a chaotic series from another start (error in standard deviations), "
        "better than the best linear prediction.",
        "Mackey & Glass 1977",
        (SERIES_LSTM,),
        number(SERIES_LSTM, "error"),
        0.2,
        "number",
        at_least=False,
        baseline=number(SERIES_LSTM, "linear_error"),
        baseline_name="linear prediction",
    ),
    Claim(
        "recurrent-time-series-last-value",
        "learns",
        "Repeating the last value is the baseline of every time series (its error; 1 is as good as saying the mean).",
        "",
        (SERIES_LSTM,),
        number(SERIES_LSTM, "last_value_error"),
        0.0,
        "number",
        presets=(),
    ),
    Claim(
        "recurrent-time-series-rnn",
        "learns",
        "A plain network of equal size predicts it nearly as well (its error): here nothing has to be carried far.",
        "",
        (SERIES_RNN,),
        number(SERIES_RNN, "error"),
        1.0,
        "number",
        at_least=False,
        presets=(),
        baseline=number(SERIES_RNN, "linear_error"),
        baseline_name="linear prediction",
    ),
    Claim(
        "recurrent-sentiment",
        "learns",
        "The LSTM tells praise from blame where negation and opinion were never seen together; counting words cannot.",
        "",
        (SENTIMENT_LSTM, SENTIMENT_WORDS),
        number(SENTIMENT_LSTM, "accuracy"),
        0.95,
        baseline=number(SENTIMENT_WORDS, "accuracy"),
        baseline_name="bag of words",
    ),
    Claim(
        "recurrent-sentiment-bigrams",
        "learns",
        "Counting pairs of neighbors as well helps little (the LSTM's lead over that).",
        "",
        (SENTIMENT_LSTM, SENTIMENT_BIGRAMS),
        difference(SENTIMENT_LSTM, SENTIMENT_BIGRAMS),
        0.3,
        "points",
    ),
    Claim(
        "recurrent-sentiment-gates",
        "paper",
        "A plain network of equal size with the rotation's start learns it from some seeds and not from others (the "
        "LSTM's lead over it).",
        "Hochreiter & Schmidhuber 1997",
        (SENTIMENT_LSTM, SENTIMENT_RNN),
        difference(SENTIMENT_LSTM, SENTIMENT_RNN),
        0.0,
        "points",
        presets=(),
    ),
)
