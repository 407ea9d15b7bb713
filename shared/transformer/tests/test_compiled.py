"""torch.compile compiles the attention function, the block and the decoder without graph breaks."""

import os
import subprocess
from pathlib import Path

from shared.testing import PYTEST


def test_compiled_programs_in_a_process_without_shape_checks():
    """The shape checker can't be traced; users run without it."""
    programs = Path(__file__).with_name("compiled_programs.py")
    finished = subprocess.run(
        [*PYTEST, str(programs)],
        env=os.environ | {"JAXTYPING_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "10 passed" in finished.stdout
