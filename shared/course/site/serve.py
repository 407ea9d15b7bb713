"""Serve the site on this machine only (`make site-serve`).

python -m shared.course.site.serve [--port 8000] [--folder site]
"""

import argparse
import contextlib
import functools
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from shared.cli import command_line, parse_whole_number
from shared.course.lesson import ROOT
from shared.errors import CourseError


class QuietHandler(SimpleHTTPRequestHandler):
    """Log failed requests only."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code)[0] not in "23":
            super().log_request(code, size)


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server for a folder, reachable from this machine only; port 0 takes a free port.

    Raises CourseError when the folder holds no site or the port is in use.
    """
    if not (folder / "index.html").exists():
        raise CourseError(f"there is no site in {folder}; run make site")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(QuietHandler, directory=folder))
    except OSError as error:
        raise CourseError(
            f"port {port} is not available ({error.strerror}); choose another: make site-serve PORT=8001"
        ) from error


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the course's site on this machine.")
    parser.add_argument("--port", type=functools.partial(parse_whole_number, "port", least=0, most=65535), default=8000)
    parser.add_argument("--folder", type=Path, default=ROOT / "site")
    options = parser.parse_args()
    with server(options.folder, options.port) as serving:
        print(f"http://127.0.0.1:{serving.server_port}  (stop with Ctrl-C)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            serving.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
