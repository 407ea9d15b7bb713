"""The recurrent part's figures, drawn from what a run has measured and trained."""

import torch
from torch import Tensor

from lessons.lesson_00_foundations.recurrent.experiment import opinions, series
from lessons.lesson_00_foundations.recurrent.experiment.arms import SERIES_LENGTH, WINDOW, read_opinions, width
from lessons.lesson_00_foundations.recurrent.model import Predictor, SentenceClassifier
from shared import plots
from shared.course.lesson import Run
from shared.training import load_weights

CAPTIONS = {
    "recurrent_recall": "Recalling one bit after so many steps of noise, held out (a coin: 50 %).",
    "recurrent_gradient": "How much the end of a fresh network feels of its state so many steps before: a straight line on this scale "
    "is exponential fading.",
    "recurrent_series": "A series from a start that was never seen. From the dashed line on, the network goes on from its own guesses, "
    "until chaos parts the two.",
    "recurrent_sentiment": "Telling praise from blame where negation and opinion never met in training.",
    "recurrent_reading": "Reading word by word: what the LSTM would answer if the sentence ended here (for it: praise above, blame below).",
}
KINDS = {
    "LSTM, slow gates": "recall, LSTM, slow",
    "LSTM": "recall, LSTM",
    "plain": "recall, RNN",
    "plain, rotation": "recall, RNN, orthogonal",
}
AHEAD = 72
EXAMPLES = (
    "the small red circle is not very dull",
    "anna finds the blue star anything but lovely",
    "by no means bad is what ben calls the moon",
)


def draw(run: Run) -> dict[str, plots.Figure]:
    """Every figure that the run's arms allow."""
    if "recall, RNN" not in run.arms[run.seeds[0]]:
        return {}
    return {
        "recurrent_recall": recall(run),
        "recurrent_gradient": gradient(run),
        "recurrent_series": prediction(run),
        "recurrent_sentiment": sentiment(run),
        "recurrent_reading": reading(run),
    }


def measured(run: Run, arm: str, name: str) -> list:
    """One thing that an arm has measured, for every seed."""
    return [run.arms[seed][arm][name] for seed in run.seeds]


def recall(run: Run) -> plots.Figure:
    """Accuracy by lag."""
    curves = {
        name: list(zip(measured(run, arm, "lags"), measured(run, arm, "accuracies"), strict=True))
        for name, arm in KINDS.items()
    }
    return plots.learning_curves(
        curves, x_label="steps of noise between the bit and the question", y_label="held-out accuracy",
        baselines={"a coin": 0.5}, percent=True,
    )  # fmt: skip


def gradient(run: Run) -> plots.Figure:
    """The gradient's length, walking back from the end."""
    curves = {}
    for name, arm in KINDS.items():
        walks = [list(reversed(values)) for values in measured(run, arm, "gradient_fresh")]
        curves[name] = [(list(range(len(walk))), walk) for walk in walks]
    return plots.learning_curves(
        curves, x_label="steps back from the end", y_label="gradient left (share of that at the end)", logarithmic=True
    )


def prediction(run: Run) -> plots.Figure:
    """A stretch of the test series: what was, what was guessed one step ahead, and what was guessed from guesses."""
    seed = run.seeds[0]
    model = load_weights(Predictor("lstm", width("lstm", 1)), run.arm_folder(seed, "series, LSTM")).eval()
    values = torch.tensor(series.mackey_glass(SERIES_LENGTH, 2 * seed + 1))[: 2 * WINDOW + AHEAD]
    begin = 2 * WINDOW
    with torch.no_grad():
        guesses = model(values[None, :-1])[0]
    alone = model.go_on(values[None, :begin], AHEAD)[0]
    card, axes = plots.subplots(height=3.6)
    axis = axes[0, 0]
    shown = range(begin - 30, len(values))
    axis.plot(shown, values[shown.start :], color=plots.INK, label="the series")
    axis.plot(
        range(shown.start, begin), guesses[shown.start - 1 : begin - 1], "o", color=plots.BLUE, markersize=4,
        label="the next value, guessed",
    )  # fmt: skip
    axis.plot(
        range(begin, len(values)), alone, "o-", color=plots.VERMILLION, markersize=4, linewidth=1, label="from guesses"
    )
    axis.axvline(begin - 0.5, color=plots.GRAY, linestyle="--", linewidth=1.2)
    axis.set(xlabel=f"value (one every {series.SPACING:.0f} days)", ylabel="x")
    axis.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.15))
    return card


def sentiment(run: Run) -> plots.Figure:
    """The LSTM against those who count."""
    names = {
        "LSTM": "sentiment, LSTM",
        "plain, rotation": "sentiment, RNN, orthogonal",
        "bag of words": "sentiment, bag of words",
        "bag of words and pairs": "sentiment, bag of bigrams",
    }
    return plots.bars_with_intervals(
        {name: measured(run, arm, "accuracy") for name, arm in names.items()},
        x_label="held-out accuracy on unseen negations",
        baselines={"a coin": 0.5},
        highlight="LSTM",
        percent=True,
    )


@torch.no_grad()
def reading(run: Run) -> plots.Figure:
    """How the answer changes while a sentence is read."""
    seed = run.seeds[0]
    texts, _, seen, _, unseen, _ = read_opinions(seed)
    vocabulary = opinions.Vocabulary([*texts, *seen, *unseen])
    model = SentenceClassifier("lstm", len(vocabulary), 16, width("lstm", 16))
    model = load_weights(model, run.arm_folder(seed, "sentiment, LSTM")).eval()
    card, axes = plots.subplots(height=1.75 * len(EXAMPLES), rows=len(EXAMPLES))
    for axis, text in zip(axes[:, 0], EXAMPLES, strict=True):
        lean = leaning(model, vocabulary, text)
        axis.bar(range(len(lean)), lean, color=[plots.GREEN if value > 0 else plots.VERMILLION for value in lean])
        axis.axhline(0, color=plots.INK, linewidth=0.8)
        axis.set(ylim=(-1, 1), yticks=[-1, 0, 1], yticklabels=["blame", "", "praise"])
        axis.set_xticks(range(len(lean)), text.split(), color=plots.INK)
    return card


def leaning(model: SentenceClassifier, vocabulary: opinions.Vocabulary, text: str) -> list[float]:
    """After each word: the probability of praise less that of blame."""
    words, lengths = vocabulary.encode([text])
    found: list[Tensor] = []
    for count in range(1, int(lengths[0]) + 1):
        share = model(words[:, :count], torch.tensor([count])).softmax(dim=-1)[0]
        found.append(share[1] - share[0])
    return torch.stack(found).tolist()
