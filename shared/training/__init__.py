"""One training loop for every lesson in PyTorch."""

from shared.training.batches import Batches
from shared.training.config import Evaluation, RunOptions, TrainingConfig
from shared.training.explosion import Exploded
from shared.training.interruption import TrainingInterrupted
from shared.training.loop import TrainingResult, train
from shared.training.lost_process import ProcessLost
from shared.training.metrics import curve_from_history, read_metrics
from shared.training.not_finite import NotFinite
from shared.training.saving import load_weights
from shared.training.stages import Stage

__all__ = [
    "Batches",
    "Evaluation",
    "Exploded",
    "NotFinite",
    "ProcessLost",
    "RunOptions",
    "Stage",
    "TrainingConfig",
    "TrainingInterrupted",
    "TrainingResult",
    "curve_from_history",
    "load_weights",
    "read_metrics",
    "train",
]
