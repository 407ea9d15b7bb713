"""Create the course's virtual environment `.venv`; `make` runs this first, with any supported Python.

Standard library only, because nothing is installed yet. A second call does nothing unless the pins have changed.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv"
INTERPRETER = ENVIRONMENT / "bin" / "python"
STAMP = ENVIRONMENT / "ready"
PINS = ("requirements.txt", "constraints.txt", "pyproject.toml")
TORCH = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
# PyTorch publishes its CPU builds here; PyPI's build for Linux brings several gigabytes of CUDA along.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


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


def pip_install(label: str, *arguments: str, required: bool = True) -> bool:
    """Run `pip install` with a progress line and return whether it succeeded.

    pip's output is shown only when a required installation fails, which ends the program.
    """
    command = [str(INTERPRETER), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    log = ENVIRONMENT / "install.log"
    started = time.monotonic()
    with log.open("a", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
        while process.poll() is None:
            time.sleep(0.2)
            if sys.stderr.isatty():
                print(f"\r  {label} … {time.monotonic() - started:3.0f} s", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if process.returncode and required:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        sys.exit(f"set-up failed while installing {label}. The last lines of pip:\n{tail}\nThe whole log: {log}")
    if not process.returncode:
        print(f"  {label}: done in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return process.returncode == 0


def install_torch() -> None:
    """Install PyTorch: the CUDA build with an NVIDIA GPU, the CPU build if there is one, else the build on PyPI."""
    linux = sys.platform.startswith("linux")
    if linux and not has_nvidia_gpu():
        cpu_build = f"{TORCH}+cpu"
        # First the index that pip is configured with, then PyTorch's own; each fails at once when it has no CPU build.
        for index in ((), ("--extra-index-url", CPU_INDEX, "--retries", "0", "--timeout", "20")):
            if pip_install("PyTorch, CPU build", *index, "-c", "constraints.txt", cpu_build, required=False):
                return
    pip_install("PyTorch", "-c", "constraints.txt", TORCH)


def is_ready() -> bool:
    """Return whether the environment was installed completely, from these pins, by this version of Python."""
    return STAMP.exists() and STAMP.read_text() == fingerprint()


@contextlib.contextmanager
def setup_lock() -> Iterator[None]:
    """Hold a lock so that only one set-up of this folder runs at a time; two would delete each other's files."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another make is setting up the course; waiting for it …", file=sys.stderr)
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def build() -> None:
    """Create the environment and install everything."""
    print("setting up the course (once; a minute or two) …", file=sys.stderr)
    # An environment of another Python, or an incomplete one, is not repaired.
    if ENVIRONMENT.exists():
        shutil.rmtree(ENVIRONMENT)
    venv.create(ENVIRONMENT, with_pip=True)
    install_torch()
    pip_install("the other packages", "-c", "constraints.txt", "-r", "requirements.txt")
    pip_install("the course itself", "--no-deps", "--no-build-isolation", "-e", ".")
    part = STAMP.with_suffix(".part")
    part.write_text(fingerprint())
    os.replace(part, STAMP)


def main() -> None:
    if is_ready():
        return
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(
            f"this is Python {sys.version.split()[0]}; the course needs 3.11, 3.12 or 3.13. Install one (python.org, "
            "your package manager, or uv) and run make again, or name it: make PYTHON=/path/to/python3.12"
        )
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < 3:
        sys.exit(f"{free:.1f} GiB are free in {ROOT}; the environment needs about 3. Free some space and try again.")
    with setup_lock():
        if not is_ready():  # another process may have finished the set-up while this one waited
            build()


if __name__ == "__main__":
    main()
