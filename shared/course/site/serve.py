"""`make site-serve`: show the site on this machine alone.

python -m shared.course.site.serve [--port 8000] [--folder site]
"""

import argparse
import contextlib
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from shared.cli import command_line
from shared.course.lesson import ROOT
from shared.errors import CourseError


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing of pages that are there."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code)[0] not in "23":
            super().log_request(code, size)


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder that only this machine can reach; port 0 takes a free one.

    Raises CourseError when there is no site in the folder, or the port is taken.
    """
    if not (folder / "index.html").exists():
        raise CourseError(f"there is no site in {folder}: run make site")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=folder))
    except OSError as error:
        raise CourseError(
            f"port {port} can't be had ({error.strerror}): name another, make site-serve PORT=8001"
        ) from error


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description="Show the course's site on this machine.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--folder", type=Path, default=ROOT / "site")
    asked = parser.parse_args()
    with server(asked.folder, asked.port) as serving:
        print(f"http://127.0.0.1:{serving.server_port}  (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            serving.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
