"""Files of public data sets: found in the cache, else fetched from their official home; always checked.

`obtain` is the one way in. A file lies in `data/cache/FOLDER/NAME`, or in `$MULTIMODAL_DATA/FOLDER/NAME` when that
is set. What is fetched goes to `NAME.part` first, where a broken download stays and is continued from, and gets its
name only when its checksum is right.
"""

import errno
import fcntl  # Linux and macOS
import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from shared.errors import CourseError

CACHE = Path(__file__).parents[1] / "cache"
CHUNK = 1 << 18
TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 3  # broken connections in a row that brought nothing, before an address is given up
PAUSE = 0.5  # seconds before a broken connection is taken up again
QUIET = 2.0  # seconds before a progress bar appears
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set: its official addresses, best first, and its checksums by name of the hash."""

    name: str
    urls: tuple[str, ...]
    checksums: dict[str, str]


@dataclass(frozen=True)
class LocalFile:
    """A file that is there, and whether its checksums are the official ones."""

    path: Path
    verified: bool


def data_folder() -> Path:
    """Return the folder that data sets lie in: `$MULTIMODAL_DATA`, else `data/cache`.

    Raises CourseError when `$MULTIMODAL_DATA` is set to something that is no folder.
    """
    given = os.environ.get("MULTIMODAL_DATA")
    if not given:
        return CACHE
    if not Path(given).is_dir():
        raise CourseError(
            f"MULTIMODAL_DATA={given} is no folder. Set it to the folder that your data sets lie in, "
            f"or unset it to use {CACHE}."
        )
    return Path(given)


def accepts_unverified() -> bool:
    """Whether the user takes data that is not the official one, byte for byte (`UNVERIFIED=1`)."""
    return os.environ.get("UNVERIFIED", "") not in ("", "0")


def find(folders: tuple[str, ...], name: str) -> Path | None:
    """Return the file (or folder) `name` where it lies in one of the data set's folders, or right in the data folder."""
    places = [data_folder() / folder / name for folder in folders] + [data_folder() / name]
    return next((place for place in places if place.exists()), None)


def obtain(file: RemoteFile, folders: tuple[str, ...]) -> LocalFile:
    """Return the file, from the cache without any network, else downloaded into the first of `folders`.

    Raises CourseError when the file is neither here nor to be had, when its checksum is wrong and `UNVERIFIED=1` is not
    set, or when the disk is full. An unfinished download is kept, and the next call continues it.
    """
    path = find(folders, file.name)
    if path is None:
        path = data_folder() / folders[0] / file.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            with _alone(part):
                # Another process may have fetched it while this one waited.
                if not path.exists():
                    return _download(file, part, path)
        except OSError as error:
            raise _cannot_write(path, error) from error
    wrong = wrong_checksum(path, file.checksums)
    if wrong and not accepts_unverified():
        raise CourseError(f"{path}: {wrong}. Remove it, so that it is downloaded again, or set UNVERIFIED=1 to use it.")
    return LocalFile(path, verified=not wrong)


def wrong_checksum(path: Path, checksums: dict[str, str]) -> str | None:
    """Return what is wrong with the file, such as "its sha256 is …, the official one is …", or None."""
    for hash_name, official in checksums.items():
        with path.open("rb") as stream:
            measured = hashlib.file_digest(stream, hash_name).hexdigest()
        if measured != official:
            return f"its {hash_name} is {measured}, the official one is {official}"
    return None


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Let one process at a time write `part`: two that append to it would spoil it."""
    while True:
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The one that had the lock before has renamed its part: then this lock holds no longer what lies there.
            if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
                continue
            try:
                yield
            finally:
                if part.exists() and part.stat().st_size == 0:
                    part.unlink()
            return


def _cannot_write(path: Path, error: OSError) -> CourseError:
    if error.errno in _NO_ROOM:
        free = shutil.disk_usage(path.parent).free // 2**20
        return CourseError(
            f"no room for {path} ({free} MB free): make room and run the same command again, "
            "it continues where it stopped; or set MULTIMODAL_DATA to a folder on another disk."
        )
    return CourseError(
        f"cannot write {path}: {error.strerror or error}. Make the folder writable, or set MULTIMODAL_DATA to one that is."
    )


def _download(file: RemoteFile, part: Path, path: Path) -> LocalFile:
    """Fetch a file from the first of its addresses that has it whole and right."""
    failures = []
    for url in file.urls:
        resumed = part.stat().st_size > 0
        try:
            _fetch(url, part)
            wrong = wrong_checksum(part, file.checksums)
            if wrong and resumed:
                # What was here may stem from another version of the file: once more, from its first byte.
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
        f"cannot download {file.name}:\n  " + "\n  ".join(failures) + f"\nGet it on a machine with network, put it at "
        f"{path} and run the same command again; or set MULTIMODAL_DATA to the folder that holds {path.parent.name}/."
    )


def _fetch(url: str, part: Path) -> None:
    """Bring `part` to its full length, taking a broken connection up again where it broke."""
    in_vain = 0
    while True:
        before = part.stat().st_size
        try:
            if _append(url, part):
                return
            reason = ConnectionError("the connection ended before the file did")
        except urllib.error.URLError:  # there is no such address, or no network: trying again at once helps nobody
            raise
        except _BROKEN as error:
            reason = error
        in_vain = in_vain + 1 if part.stat().st_size <= before else 0
        if in_vain == ATTEMPTS:
            raise reason
        time.sleep(PAUSE)


def _append(url: str, part: Path) -> bool:
    """Fetch the bytes that `part` lacks; False when the connection ended before the last one."""
    have = part.stat().st_size
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing lies beyond what is here: complete, or of another version
            return True
        raise
    with response:
        if response.status != 206:  # the server sends the whole file whatever was asked
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("r+b" if have else "wb") as out, _bar(part.stem, total) as advance:
            out.seek(have)
            while chunk := response.read(CHUNK):
                out.write(chunk)
                have += len(chunk)
                advance(have)
    return total is None or have == total


@contextmanager
def _bar(name: str, total: int | None):
    """Yield a function that is told how many bytes are here; a slow download shows a bar."""
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, transient=True)
    task = progress.add_task(name, total=total)
    begun = time.monotonic()

    def advance(have: int) -> None:
        if not progress.live.is_started and time.monotonic() - begun > QUIET:
            progress.start()
        progress.update(task, completed=have)

    try:
        yield advance
    finally:
        progress.stop()
