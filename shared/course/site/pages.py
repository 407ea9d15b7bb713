"""Lay out what the site is made of: the course's own pages and notebooks as they stand, a page for every file of code,
and what only the site says: a lesson's facts below its title, a list of each folder, and the way through it all.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.course.lesson import LessonEntry, lesson_entries
from shared.course.site.listing import LISTING, listing
from shared.course.site.prerequisites import prerequisites

FOLDERS = ("lessons", "shared", "data", "benchmarks", "requirements")
AT_THE_TOP = ("*.md", "*.toml", "*.txt", "LICENSE", "Makefile", "Dockerfile")
# A handout is a page with gaps, filled in for each lesson's bundle.
LEFT_OUT = {"__pycache__", "cache", "checkpoints", "handout"}
PAGES, CODE, OTHERS = {".md", ".ipynb"}, {".py", ".toml", ".txt", ""}, {".png", ".svg", ".gif", ".jpg", ".json", ".gz"}
SOURCE = ".source"
"""What a file of code is called among the pages: model.py.source becomes the page model.py.html."""
# The line below a lesson's title that says by hand what the box of facts says.
FACTS_LINE = re.compile(
    r"^(?:Learn|Build|Capstone) · about \d+ minutes · (.+?)(?: · \[notebook\]\(lesson\.ipynb\))?\n", re.M
)


@dataclass(frozen=True)
class Course:
    """A course on disk, as far as its site is concerned."""

    root: Path
    files: tuple[Path, ...]
    """Whatever pages are made of, or may show and link to."""
    lessons: dict[int, Path]
    """The folder of each lesson that has a page, by its number."""
    entries: dict[int, LessonEntry]

    @classmethod
    def at(cls, root: Path) -> "Course":
        files = [path for pattern in AT_THE_TOP for path in sorted(root.glob(pattern))]
        for top in FOLDERS:
            for where, folders, names in os.walk(root / top):
                folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.startswith("."))
                paths = [Path(where) / name for name in sorted(names) if not name.startswith(".")]
                files += [path for path in paths if path.suffix in PAGES | CODE | OTHERS and path.stat().st_size]
        found = [
            path.parent for path in files if re.fullmatch(r"lessons/lesson_\d\d_\w+/README.md", relative(path, root))
        ]
        lessons = {int(folder.name.split("_")[1]): folder for folder in found}
        return cls(root, tuple(files), lessons, {entry.number: entry for entry in lesson_entries()})

    def lesson_of(self, path: Path) -> int | None:
        """The lesson in whose folder a file lies."""
        return next((number for number, folder in self.lessons.items() if folder in path.parents), None)

    def prose(self) -> Iterator[Path]:
        """Every page of Markdown but the front page."""
        return (path for path in self.files if path.suffix == ".md" and path != self.root / "README.md")


def lay_out(root: Path, place: Path) -> int:
    """Write the pages of the course at `root` into the new folder `place`, and count them."""
    wanted = dict(contents(Course.at(root)))
    for name, content in wanted.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return sum(name.endswith((*PAGES, SOURCE)) for name in wanted)


def contents(course: Course) -> Iterator[tuple[str, bytes]]:
    """Name and content of everything that the site is made of."""
    for path in course.files:
        name, content = relative(path, course.root), path.read_bytes()
        if path.suffix in CODE:
            yield name + SOURCE, content
        elif path.name == "README.md":
            yield name, with_site_parts(content.decode(), path, course).encode()
        else:
            yield name, content
    for folder in course.lessons.values():
        if (bundle := bundle_of(folder)).exists():
            yield f"{relative(folder, course.root)}/{bundle.name}", bundle.read_bytes()
    folders = {folder for path in course.files for folder in path.parents if course.root in folder.parents}
    for folder in sorted(folders):
        below = [path for path in course.files if folder in path.parents and path.suffix in PAGES | CODE]
        yield f"{relative(folder, course.root)}/{LISTING}.md", listing(folder, below, course.root).encode()


def bundle_of(folder: Path) -> Path:
    """Where `make assign-N` leaves the student's bundle of a lesson."""
    return folder.parents[1] / "dist" / f"{folder.name}.zip"


def with_site_parts(text: str, page: Path, course: Course) -> str:
    """A README with what the site adds: facts in a box, and the pages that stand below this one."""
    if page.parent == course.root:
        return text + front_contents(course)
    number = course.lesson_of(page)
    if number is None:
        return below_title(text, f"* **Code:** [all files]({LISTING}.md)")
    folder = course.lessons[number]
    if page.parent != folder:
        return below_title(text, f"* **Part of:** [lesson {number}]({relative(folder / 'README.md', page.parent)})")
    notebooks = [f"Notebook <{name}>" for name in notebook(folder)]
    below = toctree([*pages_below(text, number, course), *notebooks])
    # The box takes the place of the line that says the like.
    if said := FACTS_LINE.search(text):
        text = text[: said.start()] + box(facts(number, course, said[1])) + text[said.end() :]
    else:
        text = below_title(text, facts(number, course))
    return text + below


def pages_below(text: str, number: int, course: Course) -> list[str]:
    """The pages in a lesson's folder besides its own, those that it links to first and in that order."""
    folder = course.lessons[number]
    names = [relative(path, folder) for path in course.prose() if course.lesson_of(path) == number]
    linked = [name for name in dict.fromkeys(re.findall(r"\]\(([\w/]+\.md)\)", text)) if name in names]
    return linked + [name for name in names if name not in linked and name != "README.md"]


def below_title(text: str, lines: str) -> str:
    """`text` with a box below its first heading."""
    heading = re.search(r"^# .+\n", text, flags=re.M)
    assert heading, f"a page begins with its title, not with {text[:60]!r}"
    return text[: heading.end()] + box(lines) + text[heading.end() :]


def box(lines: str) -> str:
    return f"\n```{{container}} facts\n{lines}\n```\n"


def facts(number: int, course: Course, says: str = "") -> str:
    """Type, minutes, what the page `says` of prerequisites and what the code shows of them, and what can be opened."""
    folder, entry = course.lessons[number], course.entries[number]
    needs = prerequisites(folder, number)
    earlier = [
        f"[lesson {one}]({relative(course.lessons[one] / 'README.md', folder)})"
        if one in course.lessons
        else f"lesson {one}"
        for one in needs.lessons
    ]
    rooms = [f"[{room}]({relative(course.root / room, folder)})" for room in needs.rooms]
    opened = [*(f"[notebook]({name})" for name in notebook(folder)), f"[all files]({LISTING}.md)"]
    if (bundle := bundle_of(folder)).exists():
        opened.append(f"[the student's bundle]({bundle.name}) (zip, {bundle.stat().st_size / 1e6:.1f} MB)")
    lines = [
        f"**Type:** {entry.kind}",
        f"**Time:** about {entry.minutes} minutes",
        says[:1].upper() + says[1:],
        f"**Builds on:** {', '.join(earlier) or 'no earlier lesson'}",
        f"**Uses:** {', '.join(rooms)}" if rooms else "",
        f"**Open:** {', '.join(opened)}",
    ]
    return "\n".join(f"* {line}" for line in lines if line)


def notebook(folder: Path) -> list[str]:
    return ["lesson.ipynb"] if (folder / "lesson.ipynb").exists() else []


def front_contents(course: Course) -> str:
    """The way through the site, as the side of every page shows it."""
    lessons = [
        f"{number} · {course.entries[number].title.split(':')[0]} <{relative(folder / 'README.md', course.root)}>"
        for number, folder in course.lessons.items()
    ]
    others = [relative(path, course.root) for path in course.prose() if course.lesson_of(path) is None]
    records = [name for name in others if name.startswith("benchmarks/")]
    rooms = [name for name in others if name not in records]
    rooms += [f"All the code of {top} <{top}/{LISTING}>" for top in ("shared", "data") if (course.root / top).exists()]
    return toctree(lessons, "Lessons") + toctree(rooms, "What lessons stand on") + toctree(records, "Records")


def toctree(names: Iterable[str], caption: str = "") -> str:
    """A directive that puts pages below this one; nothing of it is seen on the page itself."""
    if not (names := list(names)):
        return ""
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", *options, "", *names, "```", ""])


def relative(path: Path, start: Path) -> str:
    """The link from a folder to a file."""
    return Path(os.path.relpath(path, start)).as_posix()
