"""The claims of the part `recurrent`."""

from lessons.lesson_00_foundations.recurrent.experiment.arms import (
    EXACT,
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
from shared.course.lesson import Claim, question

DISTANT = 50
"""Number of steps before the end at which the gradient of an untrained network is compared."""


def gradient_left(arm: str) -> Measure:
    """Return a measure of the gradient norm `DISTANT` steps before the end, relative to the norm at the end."""
    return lambda arms: arms[arm]["gradient_untrained"][-1 - DISTANT]


CLAIMS = (
    Claim(
        "recurrent-rnn-equals-pytorch",
        "exact",
        "The recurrent layer against nn.RNN: outputs, last state and gradients, with sequences of different "
        "lengths (largest difference, float64).",
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
        "The LSTM against nn.LSTM: outputs, last state and gradients, with sequences of different lengths "
        "(largest difference, float64).",
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
        "States and gradients of the pure-Python and the PyTorch cells (largest difference, float64).",
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
        "Gradient through time of the recurrent layer against the product of its Jacobians (largest difference, "
        "float64).",
        "Bengio et al. 1994, section III",
        (EXACT,),
        number(EXACT, "jacobian_difference"),
        1e-9,
        "error",
        at_least=False,
    ),
    *question(
        "How far back do gradients reach?",
        Claim(
            "recurrent-gradient-vanishes",
            "paper",
            "Fraction of the gradient that reaches the state 50 steps earlier in an untrained RNN.",
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
            "Fraction of the gradient that reaches the state 50 steps earlier in an untrained LSTM with chrono "
            "initialization.",
            "Hochreiter & Schmidhuber 1997, section 3; arXiv:1804.11188",
            (RECALL_CHRONO, RECALL_RNN),
            gradient_left(RECALL_CHRONO),
            0.1,
            "error",
            baseline=gradient_left(RECALL_RNN),
            baseline_name="RNN",
        ),
    ),
    *question(
        "Which network recalls a bit after a long delay?",
        Claim(
            "recurrent-recall",
            "paper",
            "Accuracy of the LSTM with chrono initialization on recalling a bit after 80 steps of noise.",
            "Hochreiter & Schmidhuber 1997, section 5",
            (RECALL_CHRONO, RECALL_RNN),
            number(RECALL_CHRONO, "accuracy_longest_lag"),
            0.75,
            baseline=number(RECALL_RNN, "accuracy_longest_lag"),
            baseline_name="RNN",
        ),
        Claim(
            "recurrent-recall-lstm",
            "paper",
            "Accuracy on recalling a bit, mean over four delays, LSTM (forget bias 1) − RNN of equal size.",
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
            "Accuracy of the RNN with orthogonal initialization on recalling a bit after 80 steps of noise.",
            "arXiv:1312.6120; arXiv:1504.00941",
            (RECALL_ORTHOGONAL,),
            number(RECALL_ORTHOGONAL, "accuracy_longest_lag"),
            0.95,
            expected="inconclusive",
        ),
    ),
    *question(
        "Does the LSTM predict a time series?",
        Claim(
            "recurrent-time-series",
            "learns",
            "Prediction error of the LSTM on a chaotic series from another start (in standard deviations).",
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
            "Prediction error of repeating the last value of the same series (in standard deviations).",
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
            "Prediction error of an RNN of equal size on the same series (in standard deviations).",
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
    ),
    *question(
        "Does the LSTM classify sentiment?",
        Claim(
            "recurrent-sentiment",
            "learns",
            "Accuracy of the LSTM on sentences with unseen combinations of negation and opinion.",
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
            "Accuracy on sentences with unseen combinations of negation and opinion, LSTM − bag of words and pairs "
            "of neighboring words.",
            "",
            (SENTIMENT_LSTM, SENTIMENT_BIGRAMS),
            difference(SENTIMENT_LSTM, SENTIMENT_BIGRAMS),
            0.3,
            "points",
        ),
        Claim(
            "recurrent-sentiment-gates",
            "paper",
            "Accuracy on sentences with unseen combinations of negation and opinion, LSTM − RNN with orthogonal "
            "initialization.",
            "Hochreiter & Schmidhuber 1997",
            (SENTIMENT_LSTM, SENTIMENT_RNN),
            difference(SENTIMENT_LSTM, SENTIMENT_RNN),
            0.0,
            "points",
            presets=(),
        ),
    ),
)
