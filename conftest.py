"""Settings that all tests of the course share."""

import fnmatch
import ipaddress
import os
import signal
import socket
from pathlib import Path

import pytest

# Tiny tensors are computed many times faster by one thread than by two that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).parent

# Files with few tests that take long: they train, or start other programs. They run first, so that at the end no worker
# waits for another one that has just begun such a file.
LONG_FILES = (
    "tests/test_smoke.py",
    "apps/assistant/tests/test_checkpoint.py",
    "tests/test_published_values.py",
    "tests/test_mutants.py",
    "lessons/*/lesson.ipynb",
    "shared/course/tests/test_new_lesson.py",
    "shared/attention/tests/test_triton_interpreter.py",
    "tests/test_published_settings.py",
    "shared/training/tests/test_parallel.py",
    "tests/test_repeatable.py",
    "shared/teaching/tests/test_mutation.py",
    "apps/captioner/tests/test_captioner_learns.py",
    "shared/teaching/tests/test_attacks.py",
    "shared/training/tests/test_watchdog.py",
    "shared/teaching/tests/test_student_bugs.py",
    "benchmarks/tests/test_kill_sweep.py",
    "shared/transformer/tests/test_compiled.py",
    "lessons/*/tests/test_reference.py",
)


def _typed_modules() -> list[str]:
    """Return every module whose tensor shapes are checked while tests run.

    The standard-library engine and the references use no PyTorch tensors, and checking each of their many small calls
    would only make them slower.
    """
    names = []
    for top in ("shared", "data", "lessons", "apps"):
        for file in sorted((ROOT / top).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            if "tests" in parts or "stdlib" in parts or "toybox" in parts or parts[-1] in ("reference", "__init__"):
                continue
            if "jaxtyping" in file.read_text(encoding="utf-8"):
                names.append(".".join(parts))
    return names


if os.environ.get("JAXTYPING_DISABLE", "0") != "1":
    from jaxtyping import install_import_hook

    install_import_hook(_typed_modules(), "beartype.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first; the others stay in their order."""

    def place(file: str) -> int:
        matches = (number for number, pattern in enumerate(LONG_FILES) if fnmatch.fnmatch(file, pattern))
        return next(matches, len(LONG_FILES))

    places = {file: place(file) for file in {item.nodeid.split("::")[0] for item in items}}
    items.sort(key=lambda item: places[item.nodeid.split("::")[0]])


@pytest.fixture(autouse=True)
def _seeded():
    """Start every test from the same random state, in whatever order the tests run."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c():
    """Let Ctrl-C act as in a terminal, in the tests and the programs that they start.

    Tests that run in the background of a shell script would otherwise ignore it, and every process inherits that.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    """Raise an error when a test connects to an address beyond this machine: the tests need no network."""
    connect = socket.socket.connect

    def connect_locally(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]
            if host != "localhost" and not ipaddress.ip_address(host.split("%")[0]).is_loopback:
                raise RuntimeError(f"no test may need the network, but this one connects to {host}")
        return connect(self, address)

    socket.socket.connect = connect_locally
    yield
    socket.socket.connect = connect
