"""Create the site's virtual environment `.venv-site`; lessons do not need the packages that build pages.

Standard library only, because nothing is installed yet. A second call does nothing unless the pins have changed.

    python -S -m shared.course.site.environment              # to build the site
    python -S -m shared.course.site.environment --browser    # to test it in Chromium, too
"""

import hashlib
import os
import sys
from pathlib import Path

from shared.course.virtual_environment import (
    VirtualEnvironment,
    require_python,
    require_space,
    setup_errors,
    setup_lock,
)

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = ROOT / ".venv-site"
INTERPRETER = ENVIRONMENT / "bin" / "python"
BUILD, BROWSER = "site.txt", "site-browser.txt"
GIB = 1
"""Free disk space that the environment needs while it is installed."""


def fingerprint(pins: str) -> str:
    """Return a hash of everything that this part of the environment is made from, including the Python version."""
    texts = [(ROOT / "requirements" / name).read_text(encoding="utf-8") for name in dict.fromkeys((BUILD, pins))]
    return hashlib.sha256("".join([sys.version, *texts]).encode()).hexdigest()


def stamp(pins: str) -> Path:
    return ENVIRONMENT / f"ready-{pins}"


def is_ready(pins: str) -> bool:
    """Return whether these pins were installed completely, by this version of Python, and have not changed."""
    return stamp(pins).exists() and stamp(pins).read_text() == fingerprint(pins)


def install(environment: VirtualEnvironment, pins: str) -> None:
    """Install a file of pins."""
    path = ROOT / "requirements" / pins
    environment.pip_install(f"requirements/{pins}", "-q", "-r", str(path))
    part = stamp(pins).with_suffix(".part")
    part.write_text(fingerprint(pins))
    os.replace(part, stamp(pins))


def main() -> None:
    required = [BUILD, BROWSER] if "--browser" in sys.argv[1:] else [BUILD]
    if all(is_ready(pins) for pins in required):
        return
    require_python("make site")
    with setup_errors(ROOT), setup_lock(ROOT) as lock:
        environment = VirtualEnvironment(ENVIRONMENT, lock)
        if not is_ready(BUILD):
            require_space(ENVIRONMENT, GIB, "the site's environment needs")
            print("setting up the site's environment (once; half a minute) …", file=sys.stderr)
            environment.create()
        for pins in required:
            if not is_ready(pins):
                install(environment, pins)


if __name__ == "__main__":
    main()
