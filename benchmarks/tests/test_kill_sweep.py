"""A short kill sweep; the long one is `python -m benchmarks.kill_sweep --kills 100`."""

import re
import subprocess
import sys

import pytest

from shared.course.job_spec import ROOT

# The long sweep plants all faults.
FAULTS = ("checkpoints are written in place", "Python's and NumPy's random states are forgotten", "a line is skipped")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    page = tmp_path_factory.mktemp("sweep") / "page.md"
    command = [sys.executable, "-m", "benchmarks.kill_sweep", "--kills", "6", "--page", str(page)]
    command += ["--plant-faults", *FAULTS]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert page.exists(), result.stdout + result.stderr
    return result, page.read_text(encoding="utf-8")


def test_killed_runs_lose_nothing(swept):
    result, page = swept
    assert result.returncode == 0, page
    assert "6 kills of" in page and "nothing was lost" in page
    kills, while_writing, weights, metrics = map(
        int, re.search(r"\| total \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", page).groups()
    )
    # Three of the six are aimed at the writing of a checkpoint and cannot miss it.
    assert kills == weights == metrics == 6 and while_writing >= 3


def test_a_full_disk_loses_nothing(swept):
    _, page = swept
    rows = [line for line in page.splitlines() if "No space left on device" in line]
    assert len(rows) == 4 and all(row.endswith("bit-identical end, complete metrics | yes |") for row in rows)


def test_the_sweep_detects_planted_faults(swept):
    _, page = swept
    table = page.split("## Planted faults")[1]
    assert "NOT DETECTED" not in table and all(f"| {fault} |" in table for fault in FAULTS)
    for text in (
        "checkpoint.safetensors is damaged",
        "checkpoint.safetensors: average.0.bias differs",
        "the metrics differ",
    ):
        assert text in table
