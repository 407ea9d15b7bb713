"""Test that the engine needs the standard library only."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_module_imports_without_installed_packages():
    modules = [f"shared.stdlib.{file.stem}" for file in sorted((ROOT / "shared" / "stdlib").glob("[a-z]*.py"))]
    assert "shared.stdlib.tensor" in modules
    # -S leaves out site-packages, -I the environment's paths: only Python's own modules and this repository remain.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport {', '.join(modules)}"
    done = subprocess.run([sys.executable, "-S", "-I", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
