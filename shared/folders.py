"""Walk a folder of the user's files: always in one order, and whatever is left out is named with its reason."""

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shared.errors import CourseError
from shared.text_files import normalize, printable

SYSTEM_NAMES = ("__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir")
"""Files and folders that operating systems and archives add, compared without case; hidden names begin with "."."""

TEXT_SUFFIXES = (".txt",)
HIDDEN, OTHER_TYPE = "hidden or made by the system", "of another type"
DEAD_LINK, KNOWN_FOLDER = "dead link", "link to a folder that is read already"


@dataclass(frozen=True)
class FolderFiles:
    """Hold the paths of a walk, relative to `root`, sorted by their names in NFC.

    files     files that are read
    folders   folders that were entered, without the root itself
    left_out  files and folders that are not read → the reason
    """

    root: Path
    files: tuple[Path, ...]
    folders: tuple[Path, ...]
    left_out: Mapping[Path, str]

    def inside(self, folder: Path | str) -> "FolderFiles":
        """Return the part of the walk below a folder, relative to it."""

        def below(paths: Iterable[Path]) -> tuple[Path, ...]:
            return tuple(path.relative_to(folder) for path in paths if path != Path(folder) and _is_below(path, folder))

        left_out = {path.relative_to(folder): why for path, why in self.left_out.items() if _is_below(path, folder)}
        return FolderFiles(self.root / folder, below(self.files), below(self.folders), left_out)


def walk_folder(root: Path | str, suffixes: Collection[str] | None = None) -> FolderFiles:
    """Return all files below a folder, links followed, each folder once.

    suffixes  the file types to return, lowercase with their dots; None returns all

    Hidden files, files that systems add, dead and circular links and unreadable folders are left out with a reason.
    Raises CourseError when the root is no readable folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise CourseError(f"{printable(root)} is not a folder; expected one")
    files, folders, left_out = [], [], {}
    entered = {_identity(root.stat())}
    waiting = [Path()]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            if folder == Path():
                raise CourseError(f"{printable(root)} cannot be read ({error.strerror})") from error
            left_out[folder] = f"unreadable folder ({error.strerror})"
            continue
        # Links come last, so that a folder is read under its own name and not under that of a link beside it.
        for entry in sorted(entries, key=lambda each: (each.is_symlink(), normalize(each.name))):
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name.casefold() in SYSTEM_NAMES:
                left_out[path] = HIDDEN
                continue
            try:
                state = os.stat(entry.path)
            except OSError as error:
                left_out[path] = DEAD_LINK if entry.is_symlink() else f"unreadable ({error.strerror})"
                continue
            if stat.S_ISDIR(state.st_mode):
                if _identity(state) in entered:
                    left_out[path] = KNOWN_FOLDER
                else:
                    entered.add(_identity(state))
                    folders.append(path)
                    waiting.append(path)
            elif not stat.S_ISREG(state.st_mode) or (suffixes is not None and path.suffix.lower() not in suffixes):
                left_out[path] = OTHER_TYPE
            else:
                files.append(path)
    in_order = dict(sorted(left_out.items(), key=lambda item: _order(item[0])))
    return FolderFiles(root, tuple(sorted(files, key=_order)), tuple(sorted(folders, key=_order)), in_order)


def describe_left_out(left_out: Mapping[Path, str], *, names: int = 5) -> str:
    """Return "3 left out: 2 dead links (a, b); 1 hidden (c)", with the first `names` of each reason; "" for none."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in left_out.items():
        by_reason.setdefault(reason, []).append(printable(path))
    parts = []
    for reason, paths in by_reason.items():
        more = f", and {len(paths) - names:,} more" if len(paths) > names else ""
        parts.append(f"{len(paths):,} {reason} ({', '.join(paths[:names])}{more})")
    return f"{len(left_out):,} left out: {'; '.join(parts)}" if parts else ""


def folder_fingerprint(folder: Path | str) -> str:
    """Return a hash of the names, sizes and modification times of all files that `walk_folder` returns.

    A folder that does not exist has a fingerprint too.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    if folder.is_dir():
        for path in walk_folder(folder).files:
            state = (folder / path).stat()
            digest.update(os.fsencode(path) + f"\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()


class FileIndex:
    """Find the files of a folder by the names that a table from another machine has for them."""

    def __init__(self, files: FolderFiles):
        self.root = files.root
        self._root_name = files.root.resolve().name
        self._by_name: dict[str, list[Path]] = {}
        for path in files.files:
            self._by_name.setdefault(normalize(path.name), []).append(path)

    def find(self, name: str) -> Path | None:
        """Return the file's path, relative to the folder, or None when there is none.

        The name is a path from the folder, or only its last parts: "1.jpg" finds "val/1.jpg". Names are compared in
        NFC, and "\\\\" separates folders as "/" does. A path that begins with "/" or has ".." in it finds nothing.

        Raises CourseError when several files fit and none of them exactly.
        """
        target = PurePosixPath(normalize(name))
        if normalize(target.name) not in self._by_name:
            target = PurePosixPath(normalize(name).replace("\\", "/"))
        if target.is_absolute() or ".." in target.parts:
            return None
        candidates = [
            path
            for path in self._by_name.get(target.name, ())
            # A table may name the folder itself, too: "val2014/1.jpg" for a file of the folder val2014.
            if normalize(f"/{self._root_name}/{path.as_posix()}").endswith(f"/{target}")
        ]
        exact = [path for path in candidates if path.as_posix() == name]
        exact = exact or [path for path in candidates if normalize(path.as_posix()) == str(target)]
        chosen = exact or candidates
        if len(chosen) > 1:
            names = ", ".join(map(printable, chosen[:3]))
            raise CourseError(f"{printable(self.root)}: the name {name!r} fits {names}; write the path of one of them")
        return chosen[0] if chosen else None


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def _order(path: Path) -> tuple[tuple[str, ...], str]:
    # Names that differ only in their Unicode form have an order, too.
    return tuple(map(normalize, path.parts)), str(path)


def _is_below(path: Path, folder: Path | str) -> bool:
    return path.parts[: len(Path(folder).parts)] == Path(folder).parts
