"""Ask the service on this machine whether it is ready: exit 0 if so, 1 if not. For containers.

python -S shared/serving/healthcheck.py [http://127.0.0.1:8000]

Standard library only, and run as a file: nothing else is imported, for this runs twice a minute.
"""

import sys
import urllib.request


def ready(url: str) -> bool:
    # A refused connection, a status of 503 and an answer that never comes are all OSErrors here.
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=4) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if ready(*sys.argv[1:] or ["http://127.0.0.1:8000"]) else 1)
