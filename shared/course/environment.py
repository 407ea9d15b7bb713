"""Make the course's virtual environment: `make` runs this before anything else, with whatever Python there is.

Standard library only, for nothing is installed yet. A second call does nothing unless the pins have changed.
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
    """A hash of everything the environment is made from, the Python version included."""
    text = sys.version + "".join((ROOT / name).read_text(encoding="utf-8") for name in PINS)
    return hashlib.sha256(text.encode()).hexdigest()


def has_nvidia_gpu() -> bool:
    """True where NVIDIA's driver answers and lists a device."""
    if not shutil.which("nvidia-smi"):
        return False
    answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return answer.returncode == 0 and "GPU" in answer.stdout


def pip(what: str, *arguments: str, must: bool = True) -> bool:
    """Run `pip install` with a line that shows it is alive; its output appears only when it fails."""
    command = [str(INTERPRETER), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    log = ENVIRONMENT / "install.log"
    started = time.monotonic()
    with log.open("a", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
        while process.poll() is None:
            time.sleep(0.2)
            if sys.stderr.isatty():
                print(f"\r  {what} … {time.monotonic() - started:3.0f} s", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if process.returncode and must:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        sys.exit(f"set-up failed at “{what}”. The last lines of pip:\n{tail}\nThe whole log: {log}")
    if not process.returncode:
        print(f"  {what}: done in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return process.returncode == 0


def install_torch() -> None:
    """The CUDA build where there is an NVIDIA GPU, the CPU build where one is offered, PyPI's own elsewhere."""
    linux = sys.platform.startswith("linux")
    if linux and not has_nvidia_gpu():
        cpu_build = f"{TORCH}+cpu"
        # First wherever pip is set up to look, then PyTorch's own index; each fails at once where it has none.
        for where in ((), ("--extra-index-url", CPU_INDEX, "--retries", "0", "--timeout", "20")):
            if pip("PyTorch, CPU build", *where, "-c", "constraints.txt", cpu_build, must=False):
                return
    pip("PyTorch", "-c", "constraints.txt", TORCH)


def is_ready() -> bool:
    """True where all was installed whole, from these pins by this version of Python."""
    return STAMP.exists() and STAMP.read_text() == fingerprint()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep out other set-ups of this folder until this one is done: two at once would tear down each other's work."""
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
    """Make the environment anew and install everything."""
    print("setting up the course (once; a minute or two) …", file=sys.stderr)
    # Another Python's environment, or a half-made one, is not worth mending.
    if ENVIRONMENT.exists():
        shutil.rmtree(ENVIRONMENT)
    venv.create(ENVIRONMENT, with_pip=True)
    install_torch()
    pip("the other packages", "-c", "constraints.txt", "-r", "requirements.txt")
    pip("the course itself", "--no-deps", "--no-build-isolation", "-e", ".")
    part = STAMP.with_suffix(".part")
    part.write_text(fingerprint())
    os.replace(part, STAMP)


def main() -> None:
    if is_ready():
        return
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(
            f"this is Python {sys.version.split()[0]}; the course needs 3.11, 3.12 or 3.13. "
            "Install one (python.org, your package manager, or uv) and try again, or name it: make PYTHON=/path/to/python3.12"
        )
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < 3:
        sys.exit(f"{free:.1f} GiB are free in {ROOT}; the environment takes about 3. Make room and try again.")
    with alone():
        if not is_ready():  # it may have become so while we waited
            build()


if __name__ == "__main__":
    main()
