"""Find Chromium on this machine, and start it so that it contacts no server except the site's."""

import os
import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC_PATH = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
# No update checks or synchronization, and no host name except this machine's resolves.
OFFLINE_FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


def find_chromium() -> str | None:
    """Return the path of Chromium or Chrome, or None; the environment variable CHROMIUM names another one."""
    candidates = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES), str(MAC_PATH) if MAC_PATH.exists() else None]
    return next((path for path in candidates if path), None)


def chromium_flags() -> list[str]:
    """Return command-line flags. As root (in a container) Chromium cannot use its sandbox; the pages are trusted."""
    return [*OFFLINE_FLAGS, "--no-sandbox"] if os.geteuid() == 0 else list(OFFLINE_FLAGS)
