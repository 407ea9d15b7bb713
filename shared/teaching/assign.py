"""`make assign-N`: write the student's bundle of lesson N, a folder and a zip, into dist/.

python -m shared.teaching.assign 1 [--own] [--out dist]
"""

import argparse
import io
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from shared.atomic import write_atomically
from shared.cli import command_line, parse_whole_number
from shared.course.lesson import ROOT
from shared.teaching.bundle import bundle_files
from shared.teaching.course_settings import PATH, assignment
from shared.teaching.markers import exercise_folder

# Any moment will do, as long as it is the same: equal bundles are equal to the byte.
MOMENT = (2000, 1, 1, 0, 0, 0)


def zipped(files: Mapping[str, bytes], name: str) -> bytes:
    """The files as a zip that unpacks into one folder of that name."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(f"{name}/{path}", MOMENT)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, files[path])
    return whole.getvalue()


def assign(number: int, out: Path, own: bool = False, settings: Path = PATH) -> Path:
    """Write `out`/lesson_NN_name and its zip, in the place of what an earlier call has written; returns the folder.

    Raises CourseError for a lesson without exercises, and when a bundle would hold a solution.
    """
    lesson = exercise_folder(number)
    files = bundle_files(number, assignment(number, lesson, settings), own)
    folder = out / lesson.name
    if folder.exists():
        shutil.rmtree(folder)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    write_atomically(out / f"{lesson.name}.zip", zipped(files, lesson.name))
    return folder


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lesson", help="the lesson's number")
    parser.add_argument("--own", action="store_true", help="leave out earlier lessons: students bring their own")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--settings", type=Path, default=PATH, help="another course.toml")
    given = parser.parse_args()
    folder = assign(parse_whole_number("lesson", given.lesson), given.out, given.own, given.settings)
    size = (given.out / f"{folder.name}.zip").stat().st_size
    print(
        f"{folder} and {folder.name}.zip ({size / 2**20:.1f} MB): no solution in it; a student begins with `make check`"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
