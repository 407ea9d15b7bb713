"""Make the site's own virtual environment, .venv-site: what builds pages is no part of what lessons need.

Standard library only, for nothing is installed yet. A second call does nothing unless the pins have changed.

    python -S shared/course/site/environment.py              # to build the site
    python -S shared/course/site/environment.py --browser    # to look at it in Chromium, too
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = ROOT / ".venv-site"
INTERPRETER = ENVIRONMENT / "bin" / "python"
BUILD, BROWSER = "site.txt", "site-browser.txt"


def fingerprint(pins: str) -> str:
    """A hash of everything that this part of the environment is made from, the Python version included."""
    texts = [(ROOT / "requirements" / name).read_text(encoding="utf-8") for name in dict.fromkeys((BUILD, pins))]
    return hashlib.sha256("".join([sys.version, *texts]).encode()).hexdigest()


def stamp(pins: str) -> Path:
    return ENVIRONMENT / f"ready-{pins}"


def is_ready(pins: str) -> bool:
    """True where these pins were installed whole, by this version of Python, and have not changed since."""
    return stamp(pins).exists() and stamp(pins).read_text() == fingerprint(pins)


def install(pins: str) -> None:
    """Install a file of pins; what pip says appears only when it fails."""
    started = time.monotonic()
    command = [INTERPRETER, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", f"requirements/{pins}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        sys.exit(f"set-up failed at requirements/{pins}. The last lines of pip:\n{tail}")
    part = stamp(pins).with_suffix(".part")
    part.write_text(fingerprint(pins))
    os.replace(part, stamp(pins))
    print(f"  requirements/{pins}: done in {time.monotonic() - started:.0f} s", file=sys.stderr)


def main() -> None:
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(
            f"this is Python {sys.version.split()[0]}; the site is built with 3.11, 3.12 or 3.13: "
            "make site PYTHON=/path/to/python3.12"
        )
    if not is_ready(BUILD):
        print("setting up what builds the site (once; half a minute) …", file=sys.stderr)
        # Another Python's environment, or a half-made one, is not worth mending.
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        venv.create(ENVIRONMENT, with_pip=True)
        install(BUILD)
    if "--browser" in sys.argv[1:] and not is_ready(BROWSER):
        install(BROWSER)


if __name__ == "__main__":
    main()
