"""Weights & Biases as a tracker: a run's metrics go there, too, beside its own metrics.jsonl and TensorBoard files.

The package is optional and imported only for a run that names it. Its own environment variables apply:
WANDB_MODE=offline writes to the run's folder alone (upload it later with `wandb sync`), WANDB_PROJECT and WANDB_ENTITY
state where it goes.
"""

import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from shared.atomic import write_atomically
from shared.errors import CourseError
from shared.training.random_state import preserve_random_states

TRACKERS = ("wandb",)
PROJECT = "multimodal-from-scratch"
ID_FILE = "wandb-run-id"
"""Holds the run's identity at Weights & Biases, so that a resumed run continues the same curves."""


def require_tracker(name: str | None) -> None:
    """Raise CourseError unless the tracker `name` is installed; None is no tracker."""
    if name is not None:
        _import_wandb(name)


def _import_wandb(name: str) -> Any:
    if name not in TRACKERS:
        raise CourseError(f"tracker {name!r} is unknown; expected {' or '.join(TRACKERS)}")
    try:
        import wandb
    except ImportError as error:
        wandb = None
        reason = str(error)
    else:
        reason = "there is a folder of that name instead of the package"
    # A folder called wandb in the working directory can be imported, too, and is empty.
    if not hasattr(wandb, "init"):
        raise CourseError(
            f"the tracker wandb cannot be used ({reason}); install it: "
            ".venv/bin/pip install -c constraints.txt -r requirements/trackers.txt"
        )
    return wandb


class WandbTracker:
    """Send the metrics of one run to Weights & Biases.

    folder      of the run: it keeps the run's id, and the files of the package
    label       name in the display; the folder above is the group, so that the stages of a run stand together
    settings    of the training, for the run's page
    first_step  steps already taken: a run from the beginning gets a new id

    Raises CourseError when the package is missing, or refuses to start. A failure later is printed once and ends only
    the tracking.
    """

    def __init__(self, name: str, folder: Path, label: str, settings: Mapping[str, Any], first_step: int):
        wandb = _import_wandb(name)
        identity = folder / ID_FILE
        if first_step == 0 or not identity.exists():
            write_atomically(identity, uuid.uuid4().hex[:8].encode())
        try:
            with preserve_random_states(torch.device("cpu")):
                self.run = wandb.init(
                    project=os.environ.get("WANDB_PROJECT", PROJECT),
                    dir=str(folder),
                    id=identity.read_text(encoding="utf-8"),
                    resume="allow",
                    name=label or folder.name,
                    group=folder.resolve().parent.name,
                    config=dict(settings),
                    settings={"console": "off"},
                )
        except (wandb.Error, OSError) as error:
            raise CourseError(
                f"Weights & Biases refuses to start ({error}); log in with `wandb login`, set WANDB_MODE=offline, or "
                "leave out the tracker"
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the metrics of one step."""
        self._call("log", dict(values), step=step)

    def close(self) -> None:
        """Finish: send what is not sent yet."""
        self._call("finish")

    def _call(self, method: str, *arguments: Any, **options: Any) -> None:
        if self.run is None:
            return
        try:
            getattr(self.run, method)(*arguments, **options)
        except Exception as error:  # a fault of the package, or of the network, must not end the training
            self.run = None
            print(f"warning: Weights & Biases failed ({error}); the run continues without it", file=sys.stderr)
