"""The arms of the recurrent part, and what it claims of them."""

from shared.course.claims import Measure, difference, number
from shared.course.lesson import Arm, Claim

ROOMS = "lessons.lesson_00_foundations.recurrent.experiment"
RECALL = f"{ROOMS}.arms:train_recall"
SERIES = f"{ROOMS}.arms:train_series"
SENTIMENT = f"{ROOMS}.arms:train_sentiment"
BAG = f"{ROOMS}.arms:train_bag"
LAGS = [10, 20, 40, 80]
FAR = 50
"""So many steps before the end, a fresh network's gradient is looked at."""


def _steps(smoke: int, usual: int, **settings) -> dict[str, dict]:
    """The same settings in every preset on a CPU, with fewer steps in the smallest."""
    return {preset: {"steps": smoke if preset == "smoke" else usual, **settings} for preset in ("smoke", "cpu", "full")}


def _recall(kind: str) -> dict[str, dict]:
    """Four lags; two short ones in the smallest preset."""
    presets = _steps(4, 200, kind=kind, lags=LAGS)
    return presets | {"smoke": presets["smoke"] | {"lags": [3, 6]}}


ARMS = (
    Arm("recall, LSTM, slow", RECALL, _recall("lstm, slow"), part="recurrent"),
    Arm("recall, LSTM", RECALL, _recall("lstm"), part="recurrent"),
    Arm("recall, RNN", RECALL, _recall("rnn"), part="recurrent"),
    Arm("recall, RNN, orthogonal", RECALL, _recall("rnn, orthogonal"), part="recurrent"),
    Arm("series, LSTM", SERIES, _steps(4, 300, kind="lstm"), part="recurrent"),
    Arm("series, RNN", SERIES, _steps(4, 300, kind="rnn"), part="recurrent"),
    Arm("sentiment, LSTM", SENTIMENT, _steps(4, 300, kind="lstm"), part="recurrent"),
    Arm("sentiment, RNN, orthogonal", SENTIMENT, _steps(4, 300, kind="rnn, orthogonal"), part="recurrent"),
    Arm("sentiment, bag of words", BAG, _steps(4, 300, pairs=False), part="recurrent"),
    Arm("sentiment, bag of bigrams", BAG, _steps(4, 300, pairs=True), part="recurrent"),
    Arm("recurrence, exact", f"{ROOMS}.exact:check_cells", {"smoke": {}, "cpu": {}, "full": {}}, part="recurrent"),
)  # fmt: skip


def felt(arm: str) -> Measure:
    """Reads how much the end of a fresh network feels of its state `FAR` steps before, as a share of what it feels of the last."""
    return lambda arms: arms[arm]["gradient_fresh"][-1 - FAR]


CLAIMS = (
    Claim(
        "recurrent-rnn-is-torchs", "exact",
        "The plain recurrent layer is PyTorch's nn.RNN: outputs, last state and every gradient, in batches of sequences of different "
        "lengths too (largest difference, float64).",
        "recurrent/model.py", ("recurrence, exact",), number("recurrence, exact", "rnn_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "recurrent-lstm-is-torchs", "exact",
        "The LSTM is PyTorch's nn.LSTM, likewise.",
        "recurrent/model.py", ("recurrence, exact",), number("recurrence, exact", "lstm_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "recurrent-reference", "exact",
        "The pure-Python cells are the PyTorch ones: states and gradients (largest difference, float64).",
        "recurrent/reference.py", ("recurrence, exact",), number("recurrence, exact", "reference_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "recurrent-jacobians", "exact",
        "The gradient through time of the plain layer is a product of Jacobians, one a step (largest difference, float64).",
        "Bengio et al. 1994, section III", ("recurrence, exact",), number("recurrence, exact", "jacobian_difference"), 1e-9, "error",
        at_least=False,
    ),
    Claim(
        "recurrent-gradient-fades", "paper",
        f"So it fades: in a fresh plain network, hardly anything is felt of the state {FAR} steps before (share of the gradient left).",
        "Bengio et al. 1994, section III", ("recall, RNN",), felt("recall, RNN"), 1e-6, "error", at_least=False,
    ),
    Claim(
        "recurrent-gradient-stays", "paper",
        "In an LSTM whose gates start slow much of it stays (share of the gradient left).",
        "Hochreiter & Schmidhuber 1997, section 3; arXiv:1804.11188", ("recall, LSTM, slow", "recall, RNN"), felt("recall, LSTM, slow"),
        0.1, "error", baseline=felt("recall, RNN"), baseline_name="plain network",
    ),
    Claim(
        "recurrent-recall", "paper",
        f"That LSTM recalls a bit after {LAGS[-1]} steps of noise; a plain network of equal size, trained alike, can only guess.",
        "Hochreiter & Schmidhuber 1997, section 5", ("recall, LSTM, slow", "recall, RNN"), number("recall, LSTM, slow", "accuracy_furthest"),
        0.75, baseline=number("recall, RNN", "accuracy_furthest"), baseline_name="plain network",
    ),
    Claim(
        "recurrent-recall-lstm", "paper",
        "The usual start of an LSTM (forget bias 1) has less of a lead over the plain network (mean accuracy over all lags, difference).",
        "Hochreiter & Schmidhuber 1997, section 5", ("recall, LSTM", "recall, RNN"), difference("recall, LSTM", "recall, RNN", "mean_accuracy"), 0.0,
        "points", presets=(),
    ),
    Claim(
        "recurrent-recall-orthogonal", "paper",
        f"Gates are not the only way: a plain network whose recurrence starts as a rotation recalls the bit too (after {LAGS[-1]} steps).",
        "arXiv:1312.6120; arXiv:1504.00941", ("recall, RNN, orthogonal",), number("recall, RNN, orthogonal", "accuracy_furthest"), 0.95,
    ),
    Claim(
        "recurrent-series", "learns",
        "The LSTM predicts the next value of a chaotic series from another start (error in standard deviations), better than the best "
        "linear prediction.",
        "Mackey & Glass 1977", ("series, LSTM",), number("series, LSTM", "error"), 0.2, "number", at_least=False,
        baseline=number("series, LSTM", "linear_error"), baseline_name="linear prediction",
    ),
    Claim(
        "recurrent-series-last-value", "learns",
        "Saying the last value again is the rival that a series has to be held against (its error; 1 is as good as saying the mean).",
        "", ("series, LSTM",), number("series, LSTM", "last_value_error"), 0.0, "number", presets=(),
    ),
    Claim(
        "recurrent-series-rnn", "learns",
        "A plain network of equal size predicts it nearly as well (its error): here nothing has to be carried far.",
        "", ("series, RNN",), number("series, RNN", "error"), 1.0, "number", at_least=False, presets=(),
        baseline=number("series, RNN", "linear_error"), baseline_name="linear prediction",
    ),
    Claim(
        "recurrent-sentiment", "learns",
        "The LSTM tells praise from blame where negation and opinion were never seen together; counting words cannot.",
        "", ("sentiment, LSTM", "sentiment, bag of words"), number("sentiment, LSTM", "accuracy"), 0.95,
        baseline=number("sentiment, bag of words", "accuracy"), baseline_name="bag of words",
    ),
    Claim(
        "recurrent-sentiment-bigrams", "learns",
        "Counting pairs of neighbors as well helps little (the LSTM's lead over that).",
        "", ("sentiment, LSTM", "sentiment, bag of bigrams"), difference("sentiment, LSTM", "sentiment, bag of bigrams"), 0.3, "points",
    ),
    Claim(
        "recurrent-sentiment-gates", "paper",
        "A plain network of equal size with the rotation's start learns it from some seeds and not from others (the LSTM's lead over it).",
        "Hochreiter & Schmidhuber 1997", ("sentiment, LSTM", "sentiment, RNN, orthogonal"),
        difference("sentiment, LSTM", "sentiment, RNN, orthogonal"), 0.0, "points", presets=(),
    ),
)  # fmt: skip
