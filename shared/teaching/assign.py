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
from shared.teaching.course_settings import PATH, load_assignment
from shared.teaching.markers import exercise_folder

# A fixed time stamp, so that equal bundles are equal bytes.
TIMESTAMP = (2000, 1, 1, 0, 0, 0)


def zip_files(files: Mapping[str, bytes], name: str) -> bytes:
    """Return the files as a zip that unpacks into one folder of that name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(f"{name}/{path}", TIMESTAMP)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, files[path])
    return buffer.getvalue()


def assign(number: int, out: Path, own: bool = False, settings: Path = PATH) -> Path:
    """Write `out`/lesson_NN_name and its zip, replacing those of an earlier call. Return the folder.

    own  leave out earlier lessons: students bring their own

    Raises CourseError for a lesson without exercises, and when the bundle would contain a solution.
    """
    lesson = exercise_folder(number)
    files = bundle_files(number, load_assignment(number, lesson, settings), own)
    folder = out / lesson.name
    if folder.exists():
        shutil.rmtree(folder)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    write_atomically(out / f"{lesson.name}.zip", zip_files(files, lesson.name))
    return folder


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description="Write the bundle that students of a lesson get.")
    parser.add_argument("lesson", help="the lesson's number")
    parser.add_argument("--own", action="store_true", help="leave out earlier lessons: students bring their own")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where to write (default: dist)")
    parser.add_argument("--settings", type=Path, default=PATH, help="another course.toml")
    options = parser.parse_args()
    folder = assign(parse_whole_number("lesson", options.lesson), options.out, options.own, options.settings)
    megabytes = (options.out / f"{folder.name}.zip").stat().st_size / 2**20
    print(f"{folder} and {folder.name}.zip ({megabytes:.1f} MB), without solutions; students start with `make check`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
