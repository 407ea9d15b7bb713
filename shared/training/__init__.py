"""The training loop that every PyTorch lesson uses."""

from shared.training.batches import Batches
from shared.training.config import Evaluation, RunOptions, TrainingConfig, muon_config
from shared.training.interruption import TrainingInterrupted
from shared.training.loop import TrainingResult, train
from shared.training.loss_sum import LossSum
from shared.training.metrics import curve_from_history, read_metrics
from shared.training.recovery import load_weights
from shared.training.stages import Stage
from shared.training.watchdog import NotFinite, ProcessLost, TrainingDiverged

__all__ = [
    "Batches",
    "Evaluation",
    "LossSum",
    "NotFinite",
    "ProcessLost",
    "RunOptions",
    "Stage",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingInterrupted",
    "TrainingResult",
    "curve_from_history",
    "load_weights",
    "muon_config",
    "read_metrics",
    "train",
]
