"""`make assign-N`: write the student's bundle of lesson N, a folder and a zip, into dist/.

python -m shared.teaching.assign 1 [--own] [--format nbgrader] [--out dist]
"""

import argparse
import io
import secrets
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from shared.atomic import write_atomically
from shared.cli import command_line, parse_whole_number
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.bundle import bundle_files
from shared.teaching.check import check
from shared.teaching.course_settings import PATH, load_assignment
from shared.teaching.markers import exercise_folder
from shared.teaching.nbgrader_format import CONFIG, nbgrader_notebook

# A fixed time stamp, so that equal bundles are equal bytes.
TIMESTAMP = (2000, 1, 1, 0, 0, 0)
SEEDS_TRIED = 4


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
    _write_folder(folder, files)
    write_atomically(out / f"{lesson.name}.zip", zip_files(files, lesson.name))
    return folder


def assign_nbgrader(number: int, out: Path, settings: Path = PATH) -> Path:
    """Write `out`/nbgrader/source/lesson_NN_name, the source of an nbgrader assignment. Return the folder.

    Raises CourseError for a lesson without exercises, when the bundle would contain a solution outside the notebook,
    and when the solution does not pass its own tests.
    """
    lesson = exercise_folder(number)
    assignment = load_assignment(number, lesson, settings)
    files = bundle_files(number, assignment)
    files[f"{lesson.name}.ipynb"] = nbgrader_notebook(number, assignment, hidden_seed(number))
    course = out / "nbgrader"
    folder = course / "source" / lesson.name
    _write_folder(folder, files)
    if not (course / CONFIG).exists():
        write_atomically(course / CONFIG, f"c = get_config()\nc.CourseDirectory.root = {str(course)!r}\n".encode())
    return folder


def hidden_seed(number: int) -> int:
    """Return a secret number with which the solution passes the tests: some hold for most random inputs only.

    Raises CourseError when the solution fails with SEEDS_TRIED of them.
    """
    failed: list[str] = []
    for _ in range(SEEDS_TRIED):
        seed = secrets.randbelow(2**31)
        failed = [exercise for exercise, result in check(number, seed=seed).items() if not result.solved]
        if not failed:
            return seed
    raise CourseError(
        f"the solution itself does not pass its tests on this machine: {', '.join(failed)}; "
        f"solve open exercises first, or take the solutions back with make solution-{failed[0]}"
    )


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files into a folder, in place of what it held."""
    if folder.exists():
        shutil.rmtree(folder)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description="Write the bundle that students of a lesson get.")
    parser.add_argument("lesson", help="the lesson's number")
    parser.add_argument("--own", action="store_true", help="leave out earlier lessons: students bring their own")
    parser.add_argument("--format", choices=("folder", "nbgrader"), default="folder", help="what to write")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where to write (default: dist)")
    parser.add_argument("--settings", type=Path, default=PATH, help="another course.toml")
    options = parser.parse_args()
    number = parse_whole_number("lesson", options.lesson)
    if options.format == "nbgrader":
        if options.own:
            raise CourseError("--own leaves out earlier lessons, which an nbgrader assignment needs; leave it away")
        folder = assign_nbgrader(number, options.out.resolve(), options.settings)
        print(f"{folder}: an assignment with solutions, for you")
        print(f"students get what this writes: cd {folder.parents[1]} && nbgrader generate_assignment {folder.name}")
        return 0
    folder = assign(number, options.out, options.own, options.settings)
    megabytes = (options.out / f"{folder.name}.zip").stat().st_size / 2**20
    print(f"{folder} and {folder.name}.zip ({megabytes:.1f} MB), without solutions; students start with `make check`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
