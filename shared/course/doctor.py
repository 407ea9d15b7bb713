"""Check whether this machine is ready for the course (`make doctor`).

Standard library only, so that it also runs before set-up.
"""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from shared.cli import command_line
from shared.course.environment import CPU_GIB, CUDA_GIB, ENVIRONMENT, fingerprint, has_nvidia_gpu, uses_cuda_build
from shared.course.lesson import ROOT
from shared.course.machine import memory_gib, package_version, processor_name

OK, WARN, FAIL = "OK", "WARN", "FAIL"
Check = tuple[str, str, str]
"""Mark, observation, advice (empty when nothing needs to be done)."""


def check_python() -> Iterator[Check]:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    mark, advice = (OK, "") if supported else (FAIL, "install Python 3.11, 3.12 or 3.13")
    yield mark, f"Python {platform.python_version()}", advice
    stamp = ENVIRONMENT / "ready"
    if not stamp.exists():
        yield WARN, "the environment .venv does not exist yet", "make setup (or any other target) creates it"
    elif Path(sys.prefix).resolve() == ENVIRONMENT.resolve() and stamp.read_text() != fingerprint():
        yield WARN, "the environment .venv is outdated: the pinned versions have changed", "make setup updates it"
    else:
        yield OK, "environment in .venv", ""
    if shutil.which("git"):
        yield OK, "git", ""
    else:
        yield WARN, "git is not installed", "install it, so that results can record their commit"


def check_hardware() -> Iterator[Check]:
    memory = memory_gib()
    mark = OK if memory >= 7.5 else WARN if memory >= 3.5 else FAIL
    advice = "" if mark == OK else "8 GiB are recommended; close other programs or use WORKERS=1"
    yield mark, f"{memory:.0f} GiB of memory", advice
    free = shutil.disk_usage(ROOT).free / 2**30
    least = CUDA_GIB if uses_cuda_build() else CPU_GIB
    mark = OK if free >= least + 2 else WARN if free >= least or ENVIRONMENT.exists() else FAIL
    advice = "" if mark == OK else f"free some space: the environment and runs need about {least + 2} GiB"
    yield mark, f"{free:.0f} GiB of disk space free", advice
    cores = os.cpu_count() or 1
    mark, advice = (OK, "") if cores >= 2 else (WARN, "runs take about twice as long on one core")
    yield mark, f"{cores} cores ({processor_name()})", advice


def check_packages() -> Iterator[Check]:
    if not package_version("torch"):
        yield WARN, "PyTorch is not installed yet", "make setup"
        return
    import torch

    yield OK, f"PyTorch {torch.__version__}", ""
    result = (torch.arange(4.0) @ torch.arange(4.0)).item()
    if result == 14.0:
        yield OK, "PyTorch computes correctly", ""
    else:
        yield FAIL, f"PyTorch computes 0·0 + 1·1 + 2·2 + 3·3 = {result}", "reinstall: rm -rf .venv; make setup"
    yield from check_gpu()
    if triton := package_version("triton"):
        yield OK, f"Triton {triton}", ""
    else:
        advice = "lessons run without it; only Triton kernels cannot be interpreted (needs Linux on x86-64)"
        yield WARN, "Triton is not installed", advice


def check_gpu() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
        yield OK, f"GPU {torch.cuda.get_device_name()}, {free:.0f} of {total:.0f} GiB free", ""
    elif has_nvidia_gpu():
        advice = "rm -rf .venv; make setup installs the CUDA build; if that does not help, update the driver"
        yield WARN, "an NVIDIA GPU that this PyTorch cannot use", advice
    else:
        yield OK, "no NVIDIA GPU: everything except PRESET=gpu runs on the CPU", ""


def check_data() -> Iterator[Check]:
    folder = os.environ.get("MULTIMODAL_DATA")
    if not folder:
        yield OK, "data sets are kept in data/cache (MULTIMODAL_DATA is not set)", ""
    elif Path(folder).is_dir():
        yield OK, f"MULTIMODAL_DATA={folder}", ""
    else:
        yield FAIL, f"MULTIMODAL_DATA={folder} is not a folder", "create it, or unset the variable"


@command_line()
def main() -> int:
    failed = 0
    for checks in (check_python, check_hardware, check_packages, check_data):
        for mark, observation, advice in checks():
            failed += mark == FAIL
            print(f"[{mark}]".ljust(7) + observation + (f" — {advice}" if advice else ""))
    print("\nready" if not failed else f"\nnot ready: {failed} check{'s' * (failed > 1)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
