"""Read files of archives that students hand in: zip, and tar with its compressions. Nothing is unpacked to the disk."""

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from shared.errors import CourseError

MAX_ENTRIES = 20_000
MAX_UNPACKED = 2**28  # bytes that are unpacked of one tar, however small its file is
TAR_OPENERS: Mapping[str, Callable[..., Any]] = {
    ".tar": open,
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
OTHER_ARCHIVES = {".7z", ".rar", ".zst", ".gz", ".bz2", ".xz", ".z", ".lz", ".ace", ".cab", ".arj", ".sit", ".dmg"}


class Archive(Protocol):
    """An archive's regular files by name, with `/` between folders."""

    names: list[str]

    def read(self, name: str, size: int) -> bytes:
        """Return at most `size` bytes of a file. Raises CourseError when it cannot be read."""
        ...


def is_archive(name: str) -> bool:
    """Return True for the name of an archive that can be read."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    return suffixes[-1:] in ([".zip"], [".tar"], [".tgz"]) or (suffixes[:1] == [".tar"] and suffixes[-1] in TAR_OPENERS)


def is_other_archive(name: str) -> bool:
    """Return True for the name of an archive of a kind that cannot be read."""
    return not is_archive(name) and Path(name).suffix.lower() in OTHER_ARCHIVES


def without_archive_suffix(name: str) -> str:
    """Return an archive's name without `.zip`, `.tar.gz` and the like; another name as it is."""
    if not (is_archive(name) or is_other_archive(name)):
        return name
    stem = Path(name).stem
    return stem[:-4] if stem.lower().endswith(".tar") else stem


def open_archive(path: Path) -> Archive:
    """Return the archive of a file. Raises CourseError with the reason when it is damaged, or of another kind."""
    if is_other_archive(path.name):
        raise CourseError(f"{path.suffix} archives are not read; a zip is")
    if not is_archive(path.name):
        raise CourseError("it is a single file; the lesson's folder is needed, or an archive of it")
    try:
        return ZipArchive(path) if path.suffix.lower() == ".zip" else TarArchive(path)
    except Exception as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> CourseError:
    """Return the error as one that names the archive's damage. A hostile file can raise any exception in a decoder."""
    if isinstance(error, CourseError):
        return error
    return CourseError(f"the archive is damaged or of an unknown kind ({type(error).__name__}: {error})")


class ZipArchive:
    """A zip file; entries that are named with backslashes, as some programs of Windows do, are read too."""

    def __init__(self, path: Path):
        self.path = path
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        _check_count(len(entries))
        self.entries = {
            entry.filename.replace("\\", "/"): entry
            for entry in entries
            if not entry.is_dir() and stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)
        }
        self.names = list(self.entries)

    def read(self, name: str, size: int) -> bytes:
        """Return at most `size` bytes of a file. Raises CourseError when it cannot be read."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.entries[name]) as file:
                return file.read(size)
        except Exception as error:
            raise _unreadable(error) from error


class TarArchive:
    """A tar file, compressed or not. Links and devices in it are ignored."""

    def __init__(self, path: Path):
        self.path = path
        self.names = []
        with self._open() as archive:
            for count, member in enumerate(archive):
                _check_count(count + 1)
                if member.isreg():
                    self.names.append(_plain_name(member.name))

    def read(self, name: str, size: int) -> bytes:
        """Return at most `size` bytes of a file. Raises CourseError when it cannot be read."""
        data = b""
        try:
            with self._open() as archive:
                for member in archive:  # the last of several with one name counts, as when it is unpacked
                    if member.isreg() and _plain_name(member.name) == name and (file := archive.extractfile(member)):
                        data = file.read(size)
        except Exception as error:
            raise _unreadable(error) from error
        return data

    @contextlib.contextmanager
    def _open(self) -> Iterator[tarfile.TarFile]:
        opener = TAR_OPENERS[self.path.suffix.lower()]
        with opener(self.path, "rb") as stream, tarfile.open(fileobj=_Limited(stream), mode="r|") as archive:
            yield archive


class _Limited(io.RawIOBase):
    """A stream that ends with an error after MAX_UNPACKED bytes: a small archive can unpack to any size."""

    def __init__(self, stream: IO[bytes]):
        self.stream, self.remaining = stream, MAX_UNPACKED

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(self.remaining + 1 if size < 0 else min(size, self.remaining + 1))
        self.remaining -= len(data)
        if self.remaining < 0:
            raise CourseError(f"it unpacks to more than {MAX_UNPACKED:,} bytes")
        return data


def _plain_name(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _check_count(count: int) -> None:
    if count > MAX_ENTRIES:
        raise CourseError(f"{count:,} entries; at most {MAX_ENTRIES:,} are read")


def archives_in(folder: Path) -> Iterator[Path]:
    """Yield the archives directly in a folder, of every kind."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.is_symlink() and (is_archive(path.name) or is_other_archive(path.name)):
            yield path
