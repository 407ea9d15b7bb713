"""The process that decodes images of untrusted clients, and that the service can end at any time.

Started by image_decoder.py as `python -m shared.serving.decoding_worker LIMITS`; LIMITS is JSON. It answers over
standard input and output until the input is closed:

    (at the start)                                        →  an empty line
    a line with the number of bytes, the bytes of a file  →  a line of JSON, and the pixels

The JSON is {"size": [width, height]}, followed by 3 · width · height bytes, or {"code", "message"} of an ImageError.
An image beyond `decode_seconds` of processor time ends the process with the signal SIGPROF. One beyond the memory limit
is an error, or ends the process.
"""

import contextlib
import json
import os
import resource
import signal
import sys
from typing import Any, BinaryIO

from PIL import AvifImagePlugin

from shared.serving.images import ImageError, decode_image
from shared.serving.settings import Settings

BASE_BYTES, BYTES_PER_PIXEL = 2**29, 60
"""Memory of the process: Python and its packages, and about a dozen copies of the largest image."""


def serve(files: BinaryIO, replies: BinaryIO, limits: Settings) -> None:
    """Answer until the service closes `files`."""
    replies.write(b"\n")
    replies.flush()
    while line := files.readline():
        reply, pixels = decode(files.read(int(line)), limits)
        replies.write(json.dumps(reply).encode() + b"\n" + pixels)
        replies.flush()


def decode(data: bytes, limits: Settings) -> tuple[dict[str, Any], bytes]:
    """Return the reply to one file and its pixels; ends the process after `limits.decode_seconds`."""
    # The timer counts the processor time of all threads. Without a handler for its signal the system ends the process,
    # also in the middle of a decoder's C code.
    signal.setitimer(signal.ITIMER_PROF, limits.decode_seconds)
    try:
        image = decode_image(data, limits)
        return {"size": image.size}, image.tobytes()
    except ImageError as error:
        return {"code": error.code, "message": error.message}, b""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def confine(max_pixels: int) -> None:
    """Limit what a decoder can do if a file takes control of it: memory, and writing files."""
    # A signal to the whole group of processes is for the service, which finishes the requests in progress first.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    limits = {
        resource.RLIMIT_AS: BASE_BYTES + BYTES_PER_PIXEL * max_pixels,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for name, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # macOS does not limit address space
            resource.setrlimit(name, (value, value))


def main() -> None:
    limits = Settings(**json.loads(sys.argv[1]))
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    # Decoders may print; only replies may reach the service. An error of the imports above is still shown.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    confine(limits.max_pixels)
    with contextlib.suppress(BrokenPipeError):  # the service has ended
        serve(sys.stdin.buffer, replies, limits)


if __name__ == "__main__":
    main()
