"""The arms of the part `recurrent`."""

from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_00_foundations.recurrent.experiment"
PART = "recurrent"
LAGS = [10, 20, 40, 80]

RECALL_CHRONO, RECALL_LSTM = "recall, LSTM, chrono", "recall, LSTM"
RECALL_RNN, RECALL_ORTHOGONAL = "recall, RNN", "recall, RNN, orthogonal"
SERIES_LSTM, SERIES_RNN = "time series, LSTM", "time series, RNN"
SENTIMENT_LSTM, SENTIMENT_RNN = "sentiment, LSTM", "sentiment, RNN, orthogonal"
SENTIMENT_WORDS, SENTIMENT_BIGRAMS = "sentiment, bag of words", "sentiment, bag of bigrams"
EXACT = "recurrence, exact"


def _arm(name: str, function: str, steps: int, **settings) -> Arm:
    """Return an arm with the same settings for every CPU preset, and four steps in `smoke`."""
    presets = {preset: {"steps": 4 if preset == "smoke" else steps, **settings} for preset in ("smoke", "cpu", "full")}
    if "lags" in settings:
        presets["smoke"]["lags"] = [3, 6]
    return Arm(name, f"{PACKAGE}.{function}", presets, part=PART)


ARMS = (
    _arm(RECALL_CHRONO, "train:train_on_recall", 200, layer_type="lstm, chrono", lags=LAGS),
    _arm(RECALL_LSTM, "train:train_on_recall", 200, layer_type="lstm", lags=LAGS),
    _arm(RECALL_RNN, "train:train_on_recall", 200, layer_type="rnn", lags=LAGS),
    _arm(RECALL_ORTHOGONAL, "train:train_on_recall", 200, layer_type="rnn, orthogonal", lags=LAGS),
    _arm(SERIES_LSTM, "train:train_on_time_series", 300, layer_type="lstm"),
    _arm(SERIES_RNN, "train:train_on_time_series", 300, layer_type="rnn"),
    _arm(SENTIMENT_LSTM, "train:train_on_sentiment", 300, layer_type="lstm"),
    _arm(SENTIMENT_RNN, "train:train_on_sentiment", 300, layer_type="rnn, orthogonal"),
    _arm(SENTIMENT_WORDS, "train:train_on_word_counts", 300, bigrams=False),
    _arm(SENTIMENT_BIGRAMS, "train:train_on_word_counts", 300, bigrams=True),
    Arm(EXACT, f"{PACKAGE}.exact:check_cells", {"smoke": {}, "cpu": {}, "full": {}}, part=PART),
)
