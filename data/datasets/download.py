"""Download files of public data sets from their official home, verify them and cache them.

`find_or_download` is the entry point. A file is cached as `data/cache/FOLDER/NAME`, or as
`$MULTIMODAL_DATA/FOLDER/NAME` when that variable is set. A download is written to `NAME.part` first and resumed from
there. It is renamed to `NAME` only after its checksum has been verified.
"""

import errno
import fcntl  # Linux and macOS
import hashlib
import http.client
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from shared.errors import CourseError

CACHE = Path(__file__).parents[1] / "cache"
CHUNK = 1 << 18
TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 3  # consecutive failed connections without new bytes before the next address is tried
PAUSE = 0.5  # seconds before a reconnection
BUSY = {429, 500, 502, 503, 504}  # statuses of a server that may answer later
BUSY_PAUSE = 2.0  # seconds before a busy server is asked again, doubled each time
LONGEST_PAUSE = 60.0  # the longest pause that a server may ask for
DISPLAY_DELAY = 2.0  # seconds before a progress bar appears
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set: its official addresses in order of preference, and its checksums by hash name."""

    name: str
    urls: tuple[str, ...]
    checksums: dict[str, str]


@dataclass(frozen=True)
class LocalFile:
    """A local file, and whether its checksums are the official ones."""

    path: Path
    verified: bool


def data_folder() -> Path:
    """Return the folder of all data sets: `$MULTIMODAL_DATA`, else `data/cache`.

    Raises CourseError when `$MULTIMODAL_DATA` is not a folder.
    """
    variable = os.environ.get("MULTIMODAL_DATA")
    if not variable:
        return CACHE
    if not Path(variable).is_dir():
        raise CourseError(
            f"MULTIMODAL_DATA={variable} is not a folder. Set it to the folder that holds your data sets, "
            f"or unset it to use {CACHE}."
        )
    return Path(variable)


def accepts_unverified() -> bool:
    """Return whether the user accepts data that differs from the official files (`UNVERIFIED=1`)."""
    return os.environ.get("UNVERIFIED", "") not in ("", "0")


def find(folders: tuple[str, ...], name: str) -> Path | None:
    """Return the path of a file or folder in one of the data set's folders, or directly in the data folder."""
    places = [data_folder() / folder / name for folder in folders] + [data_folder() / name]
    return next((place for place in places if place.exists()), None)


def find_or_download(file: RemoteFile, folders: tuple[str, ...]) -> LocalFile:
    """Return the file from the cache, else download it into the first of `folders`.

    Raises CourseError when the file cannot be downloaded, when its checksum is wrong and `UNVERIFIED=1` is not set,
    when a folder has its name, or when the disk is full. An unfinished download is kept, and the next call resumes it.
    """
    path = find(folders, file.name)
    if path and path.is_dir():
        raise CourseError(f"{path} is a folder where the file {file.name} is expected; rename the folder or remove it")
    if path is None:
        path = data_folder() / folders[0] / file.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            with _exclusive(part):
                # Another process may have downloaded it while this one waited.
                if not path.exists():
                    return _download(file, part, path)
        except OSError as error:
            raise _cannot_write(path, error) from error
    wrong = wrong_checksum(path, file.checksums)
    if wrong and not accepts_unverified():
        raise CourseError(f"{path}: {wrong}. Remove it to download it again, or set UNVERIFIED=1 to use it.")
    return LocalFile(path, verified=not wrong)


def wrong_checksum(path: Path, checksums: dict[str, str]) -> str | None:
    """Return a description of the first wrong checksum, or None when all are right.

    Raises CourseError when the file cannot be read.
    """
    for hash_name, official in checksums.items():
        try:
            with path.open("rb") as stream:
                measured = hashlib.file_digest(stream, hash_name).hexdigest()
        except OSError as error:
            raise CourseError(f"cannot read {path}: {error.strerror or error}") from error
        if measured != official:
            return f"its {hash_name} is {measured}, the official one is {official}"
    return None


@contextmanager
def _exclusive(part: Path) -> Iterator[None]:
    """Let one process at a time write `part`: two concurrent writers would corrupt it."""
    while True:
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The previous holder may have renamed its file; then this lock belongs to a file that is no longer `part`.
            if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
                continue
            try:
                yield
            finally:
                if part.exists() and part.stat().st_size == 0:
                    part.unlink()
            return


def _cannot_write(path: Path, error: OSError) -> CourseError:
    if error.errno in _DISK_FULL:
        free = shutil.disk_usage(path.parent).free // 2**20
        return CourseError(
            f"the disk is full: cannot write {path} ({free} MB free). Free some space and run the same command again "
            "to resume, or set MULTIMODAL_DATA to a folder on another disk."
        )
    return CourseError(
        f"cannot write {path}: {error.strerror or error}. "
        "Make the folder writable, or set MULTIMODAL_DATA to another one."
    )


def _download(file: RemoteFile, part: Path, path: Path) -> LocalFile:
    """Download a file from the first address that serves it completely with the right checksum."""
    failures = []
    for url in file.urls:
        resumed = part.stat().st_size > 0
        try:
            _fetch(url, part)
            wrong = wrong_checksum(part, file.checksums)
            if wrong and resumed:
                # The existing part may come from another version of the file: start again from the first byte.
                os.truncate(part, 0)
                _fetch(url, part)
                wrong = wrong_checksum(part, file.checksums)
        except _BROKEN as error:
            failures.append(f"{url}: {error}")
            continue
        if not wrong or accepts_unverified():
            part.replace(path)
            return LocalFile(path, verified=not wrong)
        os.truncate(part, 0)
        failures.append(f"{url}: {wrong}")
    raise CourseError(
        f"cannot download {file.name}:\n  "
        + "\n  ".join(failures)
        + f"\nDownload it on a machine with network access, put it at "
        f"{path} and run the same command again; or set MULTIMODAL_DATA to the folder that holds {path.parent.name}/."
    )


def _fetch(url: str, part: Path) -> None:
    """Download `part` completely, reconnecting after a broken connection and asking a busy server again."""
    failures = 0
    while True:
        before = part.stat().st_size
        pause = PAUSE
        try:
            if _append(url, part):
                return
            reason: Exception = ConnectionError("the connection ended before the file was complete")
        except urllib.error.HTTPError as error:
            if error.code not in BUSY:
                raise
            reason, pause = error, _busy_pause(error, failures)
        except urllib.error.URLError:  # no such address or no network: an immediate retry would fail too
            raise
        except _BROKEN as error:
            reason = error
        failures = failures + 1 if part.stat().st_size <= before else 0
        if failures == ATTEMPTS:
            raise reason
        time.sleep(pause)


def _busy_pause(error: urllib.error.HTTPError, failures: int) -> float:
    """Return how many seconds to wait for a busy server: as many as it asks for, else longer after each failure."""
    requested = error.headers.get("Retry-After") or ""
    seconds = float(requested) if requested.isascii() and requested.isdecimal() else BUSY_PAUSE * 2**failures
    return min(seconds, LONGEST_PAUSE)


def _append(url: str, part: Path) -> bool:
    """Download the missing bytes of `part`; return False when the connection ended early."""
    have = part.stat().st_size
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # no bytes remain: the file is complete, or another version
            return True
        raise
    except ValueError as error:  # the server redirects to what is no address
        raise urllib.error.URLError(f"the server's answer leads to an invalid address ({error})") from error
    with response:
        if response.status != 206:  # the server ignored the range and sends the whole file
            have = 0
        length = response.headers.get("Content-Length") or ""
        # A length that is no number counts as unknown; the checksum tells whether the file is complete.
        total = have + int(length) if length.isascii() and length.isdecimal() else None
        with part.open("r+b" if have else "wb") as out, _bar(part.stem, total) as advance:
            out.seek(have)
            while chunk := response.read(CHUNK):
                out.write(chunk)
                have += len(chunk)
                advance(have)
    return total is None or have == total


@contextmanager
def _bar(name: str, total: int | None):
    """Yield a function that reports the number of downloaded bytes; a slow download shows a progress bar.

    Without a terminal, a slow download prints one line instead.
    """
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task(name, total=total)
    started, announced = time.monotonic(), False

    def advance(have: int) -> None:
        nonlocal announced
        if not announced and time.monotonic() - started > DISPLAY_DELAY:
            announced = True
            progress.start()
            if not console.is_terminal:
                size = f" ({total / 1e6:.1f} MB)" if total else ""
                print(f"downloading {name}{size} …", file=sys.stderr, flush=True)
        progress.update(task, completed=have)

    try:
        yield advance
    finally:
        progress.stop()
