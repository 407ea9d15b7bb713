"""Tests give the same result under any hash seed, and need no network."""

import os
import socket
import subprocess

import pytest

from shared.course.lesson import ROOT
from shared.testing import PYTEST

# A sample that uses sets, dictionaries, shuffles and training, and is quick enough to run twice.
SAMPLE = [
    "shared/training/tests/test_batches.py",
    "data/toybox/tests",
    "lessons/lesson_01_vit/tests/test_exercises.py",
]


def test_tests_pass_under_another_hash_seed():
    """The suite runs the sample once under its own hash seed; this runs it again under a different one."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "4242" else "4242"
    environment = os.environ | {"PYTHONHASHSEED": seed}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    done = subprocess.run([*PYTEST, *SAMPLE], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_tests_cannot_reach_the_network():
    """The root conftest refuses every address beyond this machine, so a test that needs one fails here, too."""
    with pytest.raises(RuntimeError, match="no test may need the network"), socket.socket() as client:
        client.connect(("192.0.2.1", 80))
