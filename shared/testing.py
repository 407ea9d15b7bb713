"""Helpers for the tests of models in several lessons."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared.training.loss_sum import LossValue, add_losses, split_metrics


def redraw_weights(model: nn.Module, *, gain: float = 0.5, buffers: bool = False) -> nn.Module:
    """Draw every parameter anew and return the model in evaluation mode.

    Many initial weights, such as zero biases and gains of 1, have no effect, so that a test would not notice an error.
    The standard deviation of 0.3 is large enough that every part matters, and small enough that softmax does not
    saturate.

    gain     mean of vectors, most of which are gains of norms
    buffers  redraw saved buffers too; whole numbers are counts, and a variance is positive
    """
    tensors = model.state_dict(keep_vars=True) if buffers else dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            if not tensor.is_floating_point():
                tensor.copy_(torch.randint(1, 100, tensor.shape))
                continue
            tensor.copy_(torch.randn_like(tensor) * 0.3 + (gain if tensor.ndim == 1 else 0.0))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.1)
    return model.eval()


def assert_loss_adds_up(loss: Callable[[list[int]], LossValue], rows: int) -> None:
    """Check that single rows, as accumulated batches or processes, add up to the loss of all rows together."""
    together, _ = split_metrics(loss(list(range(rows))))
    parts = [split_metrics(loss([row]))[0] for row in range(rows)]
    torch.testing.assert_close(add_losses(parts).mean(), together.mean(), rtol=1e-4, atol=1e-5)
    mean_of_means = torch.stack([part.mean() for part in parts]).mean()
    if together.terms != 1:  # else the terms of a row are the row itself
        assert (mean_of_means - together.mean()).abs() > 1e-3 * together.mean().abs(), (
            "the rows have equally many terms"
        )


def rewrite_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the `config.json` of a model folder in place."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


PYTEST = (sys.executable, "-m", "pytest", "-q", *(f"-pno:{name}" for name in ("cacheprovider", "xdist", "nbval")))
"""The command of a test that runs other tests. Plugins that it does not need take as long to load as PyTorch does."""


def environment_without_make() -> dict[str, str]:
    """Return this process's environment without the variables by which a make tells another one that it started it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}


def quick_run(reference: str) -> subprocess.CompletedProcess[str]:
    """Run a reference's few steps with nothing installed, on a terminal that has ASCII characters only.

    `tests/test_imports.py` runs the references that no test of their lesson runs so.

    reference  its module, such as "lessons.lesson_01_vit.reference"

    Raises AssertionError when it fails or prints nothing.
    """
    done = subprocess.run(
        [sys.executable, "-S", "-m", reference, "--quick", "--seed", "0"],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "a reference prints what it measured"
    return done


def has_curve(printed: str) -> bool:
    """Return whether ASCII text has a curve that reaches its lowest level, as a chart of a falling loss does."""
    return re.search(r"(?=\S*_)[_.=+*%#-]{5,}", printed) is not None
