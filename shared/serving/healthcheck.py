"""Ask the service on this machine whether it is ready: exit 0 if it is, 1 if not. For containers.

python -S shared/serving/healthcheck.py [http://127.0.0.1:8000]

Standard library only, and run as a file, without other imports: this runs twice per minute.
"""

import sys
import urllib.request


def is_ready(url: str) -> bool:
    """Return whether /health answers with status 200 within four seconds."""
    # A refused connection, status 503 and a timeout are all OSErrors here.
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=4) as response:
            return response.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if is_ready(*sys.argv[1:] or ["http://127.0.0.1:8000"]) else 1)
