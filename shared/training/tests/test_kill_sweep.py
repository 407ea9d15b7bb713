"""A short kill sweep (the long one: `python -m benchmarks.kill_sweep --kills 100`)."""

import re
import subprocess
import sys

import pytest

from shared.course.job_spec import ROOT

# The long sweep plants them all.
FAULTS = ("checkpoints are written in place", "Python's and NumPy's random states are forgotten", "a line is skipped")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    page = tmp_path_factory.mktemp("sweep") / "page.md"
    command = [sys.executable, "-m", "benchmarks.kill_sweep", "--kills", "6", "--page", str(page)]
    command += ["--plant-faults", *FAULTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert page.exists(), done.stdout + done.stderr
    return done, page.read_text(encoding="utf-8")


def test_runs_that_are_killed_lose_nothing(swept):
    done, page = swept
    assert done.returncode == 0, page
    assert "6 kills of" in page and "nothing was lost" in page
    kills, inside, weights, metrics = map(
        int, re.search(r"\| in all \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", page).groups()
    )
    # Three of the six are aimed at a checkpoint's writing, and can't miss it.
    assert kills == weights == metrics == 6 and inside >= 3


def test_a_full_disk_loses_nothing(swept):
    _, page = swept
    rows = [line for line in page.splitlines() if "No space left on device" in line]
    assert len(rows) == 4 and all(row.endswith("bit-identical end, unbroken metrics | yes |") for row in rows)


def test_the_sweep_notices_planted_faults(swept):
    _, page = swept
    found = page.split("## Faults planted on purpose")[1]
    assert "NOT NOTICED" not in found and all(f"| {fault} |" in found for fault in FAULTS)
    for words in (
        "checkpoint.safetensors is damaged",
        "checkpoint.safetensors: average.0.bias differs",
        "the metrics differ",
    ):
        assert words in found
