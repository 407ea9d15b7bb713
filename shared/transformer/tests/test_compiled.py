"""torch.compile compiles the attention function, the block and the decoder without graph breaks."""

import os
import subprocess
import sys
from pathlib import Path


def test_compiled_programs_in_a_process_without_shape_checks():
    """The shape checker can't be traced; users run without it."""
    programs = Path(__file__).with_name("compiled_programs.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(programs)]
    finished = subprocess.run(
        command, env=os.environ | {"JAXTYPING_DISABLE": "1"}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "10 passed" in finished.stdout
