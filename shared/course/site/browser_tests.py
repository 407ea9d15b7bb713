"""Decide whether this machine can run the tests that open pages in Chromium, and skip them with a reason if not."""

import os
from pathlib import Path

import pytest

from shared.course.site.chromium import find_chromium
from shared.course.site.environment import BROWSER, INTERPRETER, is_ready


def require(available: object, message: str) -> None:
    """Skip the test with a message when something is missing; under `make test-site`, fail."""
    if not available:
        (pytest.fail if os.environ.get("SITE") == "must" else pytest.skip)(message)


def require_installed(pins: str) -> None:
    """Skip the test unless a file of the site's pins is installed."""
    require(
        is_ready(pins),
        f"requirements/{pins} is not installed for this Python: make test-site installs it and runs this",
    )


def require_browser() -> Path:
    """Return the interpreter that drives Chromium; skip the test when there is none, or no Chromium."""
    require_installed(BROWSER)
    require(
        find_chromium(), "this machine has no Chromium or Chrome: install one, or name it with CHROMIUM=/path/to/it"
    )
    return INTERPRETER
