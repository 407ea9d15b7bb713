"""`make doctor`: is this machine ready for the course? Standard library only, so that it runs before set-up too."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from shared.course.environment import ENVIRONMENT, fingerprint
from shared.course.machine import ROOT, memory_gib, package_version, processor

OK, WARN, FAIL = "OK", "WARN", "FAIL"
Finding = tuple[str, str, str]
"""Mark, what was found, what to do (empty when nothing is)."""


def python_and_environment() -> Iterator[Finding]:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield (
        OK if good else FAIL,
        f"Python {platform.python_version()}",
        "" if good else "install Python 3.11, 3.12 or 3.13",
    )
    stamp = ENVIRONMENT / "ready"
    if not stamp.exists():
        yield WARN, "no environment yet", "make setup (or any other target) makes it"
    elif Path(sys.prefix).resolve() == ENVIRONMENT.resolve() and stamp.read_text() != fingerprint():
        yield WARN, "the environment was made from other pins than these", "make setup brings it up to date"
    else:
        yield OK, "environment in .venv", ""
    git = shutil.which("git")
    yield (
        OK if git else WARN,
        "git" if git else "no git",
        "" if git else "install git, so that results name their commit",
    )


def hardware() -> Iterator[Finding]:
    memory = memory_gib()
    mark = OK if memory >= 7.5 else WARN if memory >= 3.5 else FAIL
    yield (
        mark,
        f"{memory:.0f} GiB of memory",
        "" if mark == OK else "8 GiB are comfortable; close other programs, use WORKERS=1",
    )
    free = shutil.disk_usage(ROOT).free / 2**30
    mark = OK if free >= 5 else WARN if free >= 3 else FAIL
    yield mark, f"{free:.0f} GiB of disk free", "" if mark == OK else "free some: environment and runs take about 5 GiB"
    cores = os.cpu_count() or 1
    yield (
        OK if cores >= 2 else WARN,
        f"{cores} cores ({processor()})",
        "" if cores >= 2 else "runs take about twice as long on one core",
    )


def packages() -> Iterator[Finding]:
    if not package_version("torch"):
        yield WARN, "PyTorch is not installed yet", "make setup"
        return
    import torch

    yield OK, f"PyTorch {torch.__version__}", ""
    probe = (torch.arange(4.0) @ torch.arange(4.0)).item()
    yield (
        (OK, "PyTorch computes", "")
        if probe == 14.0
        else (FAIL, f"PyTorch says 0·0+1·1+2·2+3·3 = {probe}", "reinstall: rm -rf .venv; make setup")
    )
    yield from gpu(torch)
    triton = package_version("triton")
    if triton:
        yield OK, f"Triton {triton}", ""
    else:
        yield (
            WARN,
            "no Triton",
            "kernels can't be read in the interpreter here; every lesson still runs (Triton needs Linux on x86-64)",
        )


def gpu(torch) -> Iterator[Finding]:
    if torch.cuda.is_available():
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
        yield OK, f"GPU {torch.cuda.get_device_name()}, {free:.0f} of {total:.0f} GiB free", ""
        return
    smi = shutil.which("nvidia-smi") and subprocess.run(
        ["nvidia-smi", "-L"], capture_output=True, text=True, check=False
    )
    if smi and smi.returncode == 0 and "GPU" in smi.stdout:
        yield (
            WARN,
            "an NVIDIA GPU that this PyTorch can't use",
            "rm -rf .venv; make setup installs the CUDA build; update the driver if that does not help",
        )
    else:
        yield OK, "no NVIDIA GPU: everything but PRESET=gpu runs on the CPU", ""


def data() -> Iterator[Finding]:
    place = os.environ.get("MULTIMODAL_DATA")
    if not place:
        yield OK, "data sets are kept in data/cache (MULTIMODAL_DATA is not set)", ""
    elif Path(place).is_dir():
        yield OK, f"MULTIMODAL_DATA={place}", ""
    else:
        yield FAIL, f"MULTIMODAL_DATA={place} is not a folder", "make it, or unset the variable"


def main() -> int:
    failed = 0
    for part in (python_and_environment, hardware, packages, data):
        for mark, found, advice in part():
            failed += mark == FAIL
            print(f"[{mark}]".ljust(7) + found + (f" — {advice}" if advice else ""))
    print("\nready" if not failed else f"\n{failed} thing{'s' * (failed > 1)} to mend first")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
