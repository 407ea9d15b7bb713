"""Test that grading which is stopped leaves no process and no folder behind, and can be continued."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.course.lesson import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sigterm_ends_grading_cleanly(tmp_path):
    temporary, submission = tmp_path / "tmp", tmp_path / "ann" / "lesson_01_vit"
    temporary.mkdir()
    submission.mkdir(parents=True)
    command = [sys.executable, "-m", "shared.teaching.grade", "1", str(tmp_path / "ann"), "--workers", "1"]
    environment = os.environ | {"TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(temporary.glob("grading-*/lessons")) and time.monotonic() < deadline:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the same command again" in errors, errors
    assert children and not any(Path("/proc", child).exists() for child in children)
    assert list(temporary.iterdir()) == []
