"""What a number was measured on."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def processor() -> str:
    """The processor's name, as its maker spells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        answer = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            return answer.stdout.strip()
    return platform.processor() or platform.machine()


def memory_gib() -> float:
    """The machine's memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def git_commit() -> str:
    """The commit that the code stands at; “+” where files differ from it, “unknown” outside a repository."""
    answer = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        return "unknown"
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "*.py"], cwd=ROOT, check=False).returncode
    return answer.stdout.strip() + ("+" if changed else "")


def package_version(package: str) -> str | None:
    """A package's version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_machine(device: str = "cpu") -> dict[str, str | int]:
    """Machine and versions, to stand beside every number that is kept."""
    about: dict[str, str | int] = {
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "memory": f"{memory_gib():.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": package_version("torch") or "none",
        "commit": git_commit(),
    }
    if device == "cuda":
        import torch

        about["gpu"] = torch.cuda.get_device_name()
    return about
