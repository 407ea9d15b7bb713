"""Create the course's virtual environment `.venv`; `make` runs this first, with any supported Python.

Standard library only, because nothing is installed yet. A second call does nothing unless the pins have changed.

    python -S -m shared.course.environment
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from shared.course.virtual_environment import (
    VirtualEnvironment,
    require_python,
    require_space,
    setup_errors,
    setup_lock,
)

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "ready"
PINS = ("requirements.txt", "constraints.txt", "pyproject.toml")
TORCH = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
# PyTorch publishes its CPU builds here; PyPI's build for Linux brings several gigabytes of CUDA along.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_GIB, CUDA_GIB = 3, 6
"""Free disk space that an environment with PyTorch's CPU build or its CUDA build needs while it is installed."""


def fingerprint() -> str:
    """Return a hash of everything that the environment is made from, including the Python version."""
    text = sys.version + "".join((ROOT / name).read_text(encoding="utf-8") for name in PINS)
    return hashlib.sha256(text.encode()).hexdigest()


def has_nvidia_gpu() -> bool:
    """Return whether NVIDIA's driver responds and lists a device."""
    if not shutil.which("nvidia-smi"):
        return False
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and "GPU" in done.stdout


def uses_cuda_build() -> bool:
    """Return whether PyTorch's CUDA build is the one to install: on Linux with an NVIDIA GPU."""
    return sys.platform.startswith("linux") and has_nvidia_gpu()


def install_torch(environment: VirtualEnvironment) -> None:
    """Install PyTorch: the CUDA build with an NVIDIA GPU, the CPU build if there is one, else the build on PyPI."""
    constraints = ("-c", str(ROOT / "constraints.txt"))
    if sys.platform.startswith("linux") and not uses_cuda_build():
        cpu_build = f"{TORCH}+cpu"
        # First the index that pip is configured with, then PyTorch's own; each fails at once when it has no CPU build.
        for index in ((), ("--extra-index-url", CPU_INDEX, "--retries", "0", "--timeout", "20")):
            if environment.pip_install("PyTorch, CPU build", *index, *constraints, cpu_build, required=False):
                return
        reason = f"PyTorch's CPU build is not reachable ({CPU_INDEX}), and the environment with its CUDA build needs"
        require_space(ENVIRONMENT, CUDA_GIB, reason)
    environment.pip_install("PyTorch", *constraints, TORCH)


def is_ready() -> bool:
    """Return whether the environment was installed completely, from these pins, by this version of Python."""
    return STAMP.exists() and STAMP.read_text() == fingerprint()


def build(lock: int) -> None:
    """Create the environment and install everything. `lock` is the descriptor of the set-up's lock."""
    require_space(ENVIRONMENT, CUDA_GIB if uses_cuda_build() else CPU_GIB, "the environment needs")
    print("setting up the course (once; a minute or two) …", file=sys.stderr)
    environment = VirtualEnvironment(ENVIRONMENT, lock)
    environment.create()
    install_torch(environment)
    requirements = ("-c", str(ROOT / "constraints.txt"), "-r", str(ROOT / "requirements.txt"))
    environment.pip_install("the other packages", *requirements)
    environment.pip_install("the course itself", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    part = STAMP.with_suffix(".part")
    part.write_text(fingerprint())
    os.replace(part, STAMP)


def main() -> None:
    if is_ready():
        return
    require_python("make")
    with setup_errors(ROOT), setup_lock(ROOT) as lock:
        if not is_ready():  # another process may have finished the set-up while this one waited
            build(lock)


if __name__ == "__main__":
    main()
