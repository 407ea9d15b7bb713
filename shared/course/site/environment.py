"""Create the site's virtual environment `.venv-site`; lessons do not need the packages that build pages.

Standard library only, because nothing is installed yet. A second call does nothing unless the pins have changed.

    python -S shared/course/site/environment.py              # to build the site
    python -S shared/course/site/environment.py --browser    # to test it in Chromium, too
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
    """Return a hash of everything that this part of the environment is made from, including the Python version."""
    texts = [(ROOT / "requirements" / name).read_text(encoding="utf-8") for name in dict.fromkeys((BUILD, pins))]
    return hashlib.sha256("".join([sys.version, *texts]).encode()).hexdigest()


def stamp(pins: str) -> Path:
    return ENVIRONMENT / f"ready-{pins}"


def is_ready(pins: str) -> bool:
    """Return whether these pins were installed completely, by this version of Python, and have not changed."""
    return stamp(pins).exists() and stamp(pins).read_text() == fingerprint(pins)


def install(pins: str) -> None:
    """Install a file of pins. pip's output is shown only when it fails, which ends the program."""
    started = time.monotonic()
    command = [
        str(INTERPRETER),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-r",
        f"requirements/{pins}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        sys.exit(f"set-up failed while installing requirements/{pins}. The last lines of pip:\n{tail}")
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
        print("setting up the site's environment (once; half a minute) …", file=sys.stderr)
        # An environment of another Python, or an incomplete one, is not repaired.
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        venv.create(ENVIRONMENT, with_pip=True)
        install(BUILD)
    if "--browser" in sys.argv[1:] and not is_ready(BROWSER):
        install(BROWSER)


if __name__ == "__main__":
    main()
