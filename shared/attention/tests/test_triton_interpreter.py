"""Run the kernels' tests on machines without a GPU: in Triton's interpreter, in a separate process.

The interpreter must be enabled before Triton is imported, and would then apply to every other test of the process.
"""

import os
import subprocess
from pathlib import Path

import pytest

from shared.testing import PYTEST

pytest.importorskip("triton")


@pytest.mark.timeout(600)
def test_in_the_interpreter():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    folder = Path(__file__).parent
    others = [file for file in sorted(folder.glob("test_triton_*.py")) if file.name != Path(__file__).name]
    files = [file.name for file in others if "need_a_device()" in file.read_text(encoding="utf-8")]
    assert len(files) >= 4
    run = subprocess.run(
        [*PYTEST, *files],
        cwd=folder,
        # Compiled programs, which are among the tests, don't work with the shape checker.
        env=environment | {"TRITON_INTERPRET": "1", "JAXTYPING_DISABLE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(run.stdout)
    assert run.returncode == 0, "kernel tests fail in the interpreter; their report is printed below"
    assert " passed" in run.stdout and " skipped" not in run.stdout
