"""Which Chromium this machine has, and how it is to be started so that it talks to nobody but the site."""

import os
import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ON_A_MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
# Without these it asks its maker for news; and no name but this machine's is to be found.
SILENT = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


def chromium() -> str | None:
    """The path of Chromium or Chrome, or None where there is none; CHROMIUM=/path/to/it names another."""
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES), str(ON_A_MAC) if ON_A_MAC.exists() else None]
    return next((path for path in found if path), None)


def flags() -> list[str]:
    """What to start it with. As root, in a container, it can't build its sandbox; the pages are our own."""
    return [*SILENT, "--no-sandbox"] if os.geteuid() == 0 else list(SILENT)
