"""The figures of the part `recurrent`, drawn from what a run has measured and trained."""

import torch

from lessons.lesson_00_foundations.recurrent.experiment import sentiment, time_series
from lessons.lesson_00_foundations.recurrent.experiment.arms import (
    RECALL_CHRONO,
    RECALL_LSTM,
    RECALL_ORTHOGONAL,
    RECALL_RNN,
    SENTIMENT_BIGRAMS,
    SENTIMENT_LSTM,
    SENTIMENT_RNN,
    SENTIMENT_WORDS,
    SERIES_LSTM,
)
from lessons.lesson_00_foundations.recurrent.experiment.evaluate import praise_by_word
from lessons.lesson_00_foundations.recurrent.experiment.train import EMBEDDING_WIDTH, SERIES_LENGTH, WINDOW, width
from lessons.lesson_00_foundations.recurrent.model import Predictor, SentenceClassifier
from shared import plots
from shared.course.lesson import Run
from shared.training import load_weights

CAPTIONS = {
    "recurrent_recall": "Accuracy of recalling one bit after several steps of noise, on held-out sequences (chance: 50 "
    "%).",
    "recurrent_gradient": "Gradient of the last output by earlier states, in untrained networks; on this scale "
    "exponential decay is a straight line.",
    "recurrent_time_series": "A series from an unseen start. After the dashed line the network continues from its own "
    "predictions, until chaos makes the two diverge.",
    "recurrent_sentiment": "Accuracy of classifying praise and blame on unseen combinations of negation and opinion.",
    "recurrent_word_by_word": "The LSTM's classification after each word of a sentence (above: praise, below: blame).",
}
LAYERS = {
    "LSTM, chrono": RECALL_CHRONO,
    "LSTM": RECALL_LSTM,
    "RNN": RECALL_RNN,
    "RNN, orthogonal": RECALL_ORTHOGONAL,
}
AHEAD = 72
"""Number of values that the network predicts from its own predictions."""
EXAMPLES = (
    "the small red circle is not very dull",
    "anna finds the blue star anything but lovely",
    "by no means bad is what ben calls the moon",
)


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure that the run's arms allow."""
    if RECALL_RNN not in run.arms[run.seeds[0]]:
        return {}
    return {
        "recurrent_recall": draw_recall(run),
        "recurrent_gradient": draw_gradient(run),
        "recurrent_time_series": draw_time_series(run),
        "recurrent_sentiment": draw_sentiment(run),
        "recurrent_word_by_word": draw_word_by_word(run),
    }


def draw_recall(run: Run) -> plots.Figure:
    """Draw accuracy against the lag."""
    curves = {
        name: list(zip(run.measurements(arm, "lags"), run.measurements(arm, "accuracies"), strict=True))
        for name, arm in LAYERS.items()
    }
    return plots.learning_curves(
        curves,
        x_label="steps of noise between the bit and the query",
        y_label="held-out accuracy",
        baselines={"chance": 0.5},
        percent=True,
    )


def draw_gradient(run: Run) -> plots.Figure:
    """Draw the gradient norm against the number of steps before the end."""
    curves = {}
    for name, arm in LAYERS.items():
        norms = [list(reversed(values)) for values in run.measurements(arm, "gradient_untrained")]
        curves[name] = [(list(range(len(values))), values) for values in norms]
    return plots.learning_curves(
        curves, x_label="steps before the end", y_label="gradient norm, relative to the end", logarithmic=True
    )


def draw_time_series(run: Run) -> plots.Figure:
    """Draw a part of the test series, predictions of the next value, and an extrapolation."""
    seed = run.seeds[0]
    model = load_weights(Predictor("lstm", width("lstm", 1)), run.arm_folder(seed, SERIES_LSTM)).eval()
    values = torch.tensor(time_series.mackey_glass(SERIES_LENGTH, 2 * seed + 1))[: 2 * WINDOW + AHEAD]
    split = 2 * WINDOW
    with torch.no_grad():
        predictions = model(values[None, :-1])[0]
    extrapolation = model.extrapolate(values[None, :split], AHEAD)[0]
    figure, axes = plots.subplots(height=3.6)
    axis = axes[0, 0]
    start, stop = split - 30, len(values)
    axis.plot(range(start, stop), values[start:], color=plots.INK, label="the series")
    axis.plot(
        range(start, split),
        predictions[start - 1 : split - 1],
        "o",
        color=plots.BLUE,
        markersize=4,
        label="prediction of the next value",
    )
    axis.plot(
        range(split, stop),
        extrapolation,
        "o-",
        color=plots.VERMILION,
        markersize=4,
        linewidth=1,
        label="extrapolation",
    )
    axis.axvline(split - 0.5, color=plots.GRAY, linestyle="--", linewidth=1.2)
    axis.set(xlabel=f"value (one every {time_series.SPACING:.0f} days)", ylabel="x")
    axis.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.15))
    return figure


def draw_sentiment(run: Run) -> plots.Figure:
    """Draw the accuracy of the recurrent classifiers and of word counts."""
    names = {
        "LSTM": SENTIMENT_LSTM,
        "RNN, orthogonal": SENTIMENT_RNN,
        "bag of words": SENTIMENT_WORDS,
        "bag of words and bigrams": SENTIMENT_BIGRAMS,
    }
    return plots.bars_with_intervals(
        {name: run.measurements(arm, "accuracy") for name, arm in names.items()},
        x_label="held-out accuracy on unseen negations",
        baselines={"chance": 0.5},
        highlight="LSTM",
        percent=True,
    )


def draw_word_by_word(run: Run) -> plots.Figure:
    """Draw the classification after each word of the example sentences."""
    seed = run.seeds[0]
    vocabulary = sentiment.Vocabulary([text for split in sentiment.load_splits(seed) for text in split.texts])
    model = SentenceClassifier("lstm", len(vocabulary), EMBEDDING_WIDTH, width("lstm", EMBEDDING_WIDTH))
    model = load_weights(model, run.arm_folder(seed, SENTIMENT_LSTM)).eval()
    figure, axes = plots.subplots(height=1.75 * len(EXAMPLES), rows=len(EXAMPLES))
    for axis, text in zip(axes[:, 0], EXAMPLES, strict=True):
        token_ids, _ = vocabulary.encode([text])
        values = praise_by_word(model, token_ids)
        axis.bar(range(len(values)), values, color=[plots.GREEN if value > 0 else plots.VERMILION for value in values])
        axis.axhline(0, color=plots.INK, linewidth=0.8)
        axis.set(ylim=(-1, 1), yticks=[-1, 0, 1], yticklabels=["blame", "", "praise"])
        axis.set_xticks(range(len(values)), text.split(), color=plots.INK)
    return figure
