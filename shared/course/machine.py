"""Describe the machine and the software versions that a number was measured with."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shared.course.lesson import ROOT


def command_output(*command: str) -> str | None:
    """Return what a command prints, without surrounding spaces; None when it fails or is not installed."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()


def processor_name() -> str:
    """Return the processor's name, as its manufacturer spells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    name = command_output("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else None
    return name or platform.processor() or platform.machine()


def memory_gib() -> float:
    """Return the machine's memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def git_commit() -> str:
    """Return the commit of the code, with "+" when Python files differ from it.

    "unknown" without git, outside a repository, and in another project's repository: its commit is not the course's.
    """
    root, commit = command_output("git", "rev-parse", "--show-toplevel"), command_output("git", "rev-parse", "HEAD")
    if not root or not commit or Path(root).resolve() != ROOT.resolve():
        return "unknown"
    unchanged = command_output("git", "diff", "--quiet", "HEAD", "--", "*.py") is not None
    return commit[:10] + ("" if unchanged else "+")


def package_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_machine(device: str = "cpu") -> dict[str, str | int]:
    """Return the machine and the versions, to be recorded beside every measured number."""
    description: dict[str, str | int] = {
        "processor": processor_name(),
        "cores": os.cpu_count() or 1,
        "memory": f"{memory_gib():.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": package_version("torch") or "none",
        "commit": git_commit(),
    }
    if device == "cuda":
        import torch

        description["gpu"] = torch.cuda.get_device_name()
    return description
