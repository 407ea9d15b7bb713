"""Write the pages that the site is built from.

These are the course's own pages and notebooks, one page per source file, and what only the site adds: facts below a
lesson's title, a listing of each folder, and the navigation.
"""

import ast
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.course.lesson import LessonEntry, lesson_entries
from shared.course.site.prerequisites import prerequisites

FOLDERS = ("lessons", "apps", "shared", "data", "benchmarks", "docs", "requirements")
TOP_LEVEL = ("*.md", "*.toml", "*.txt", "*.cff", "LICENSE", "Makefile", "Dockerfile")
# A handout is a page with gaps, which are filled in for each lesson's bundle.
EXCLUDED = {"__pycache__", "cache", "checkpoints", "handout"}
PAGES, CODE = {".md", ".ipynb"}, {".py", ".toml", ".txt", ".cff", ""}
OTHER_FILES = {".png", ".svg", ".gif", ".jpg", ".json", ".gz"}
LISTING = "files"
"""The page that lists a folder is files.html in it."""
SOURCE = ".source"
"""The suffix of source files among the pages: model.py.source becomes the page model.py.html."""
# The line below a lesson's title with type, minutes and prerequisites, which the site replaces by a box of facts.
FACTS_LINE = re.compile(
    r"^(?:Learn|Build|Capstone) · about \d+ minutes · (.+?)(?: · \[notebook\]\(lesson\.ipynb\))?\n", re.M
)


@dataclass(frozen=True)
class Course:
    """The files of a course that the site uses.

    files    all files that become pages, or that pages show and link to
    lessons  lesson number → folder, for lessons with a page
    """

    root: Path
    files: tuple[Path, ...]
    lessons: dict[int, Path]
    entries: dict[int, LessonEntry]

    @classmethod
    def at(cls, root: Path) -> "Course":
        files = [path for pattern in TOP_LEVEL for path in sorted(root.glob(pattern))]
        for top in FOLDERS:
            for parent, folders, names in os.walk(root / top):
                folders[:] = sorted(name for name in folders if name not in EXCLUDED and not name.startswith("."))
                paths = [Path(parent) / name for name in sorted(names) if not name.startswith(".")]
                files += [path for path in paths if path.suffix in PAGES | CODE | OTHER_FILES and path.stat().st_size]
        lesson_page = re.compile(r"lessons/lesson_\d\d_\w+/README.md")
        lesson_folders = [path.parent for path in files if lesson_page.fullmatch(relative(path, root))]
        lessons = {int(folder.name.split("_")[1]): folder for folder in lesson_folders}
        return cls(root, tuple(files), lessons, {entry.number: entry for entry in lesson_entries()})

    def lesson_of(self, path: Path) -> int | None:
        """Return the number of the lesson whose folder contains a file."""
        return next((number for number, folder in self.lessons.items() if folder in path.parents), None)

    def markdown_pages(self) -> Iterator[Path]:
        """Yield every Markdown page except the front page."""
        return (path for path in self.files if path.suffix == ".md" and path != self.root / "README.md")


def write_pages(root: Path, folder: Path) -> int:
    """Write the pages of the course at `root` into the new folder `folder` and return their number."""
    files = dict(contents(Course.at(root)))
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return sum(name.endswith((*PAGES, SOURCE)) for name in files)


def contents(course: Course) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of every file that the site is built from."""
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


def listing(folder: Path, files: Iterable[Path], root: Path) -> str:
    """Return the page of `folder`, given every file below it that has a page."""
    names = [path.relative_to(folder).parts for path in files]
    lines = ["---", "orphan: true", "no-search: true", "---", f"# {folder.relative_to(root).as_posix()}", ""]
    if folder.parent != root:
        lines.append(f"* [..](../{LISTING}.md)")
    lines += [f"* [`{name}/`]({name}/{LISTING}.md)" for name in sorted({parts[0] for parts in names if len(parts) > 1})]
    for (name,) in (parts for parts in names if len(parts) == 1):
        summary = first_paragraph(folder / name) if name.endswith(".py") else ""
        lines.append(f"* [`{name}`]({name})" + (f": {summary}" if summary else ""))
    return "\n".join(lines) + "\n"


def first_paragraph(path: Path) -> str:
    """Return the first paragraph of a module's docstring, as Markdown that renders to the same characters."""
    paragraph = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    pieces = re.split(r"(`[^`]+`)", " ".join(paragraph.split()))
    # Markdown does not interpret text between backticks; elsewhere its special characters are escaped.
    return "".join(piece if piece.startswith("`") else re.sub(r"([*_$<\[\]\\])", r"\\\1", piece) for piece in pieces)


def bundle_of(folder: Path) -> Path:
    """Return the path to which `make assign-N` writes the student's bundle of a lesson."""
    return folder.parents[1] / "dist" / f"{folder.name}.zip"


def with_site_parts(text: str, page: Path, course: Course) -> str:
    """Return a README with a box of facts and the list of the pages below it."""
    if page.parent == course.root:
        return text + navigation(course)
    number = course.lesson_of(page)
    if number is None:
        return below_title(text, f"* **Code:** [all files]({LISTING}.md)")
    folder = course.lessons[number]
    if page.parent != folder:
        return below_title(text, f"* **Part of:** [lesson {number}]({relative(folder / 'README.md', page.parent)})")
    notebooks = [f"Notebook <{name}>" for name in notebook(folder)]
    below = toctree([*pages_below(text, number, course), *notebooks])
    if line := FACTS_LINE.search(text):
        text = text[: line.start()] + box(facts(number, course, line[1])) + text[line.end() :]
    else:
        text = below_title(text, facts(number, course))
    return text + below


def pages_below(text: str, number: int, course: Course) -> list[str]:
    """Return the other pages in a lesson's folder: first those that it links to, in that order."""
    folder = course.lessons[number]
    names = [relative(path, folder) for path in course.markdown_pages() if course.lesson_of(path) == number]
    linked = [name for name in dict.fromkeys(re.findall(r"\]\(([\w/]+\.md)\)", text)) if name in names]
    return linked + [name for name in names if name not in linked and name != "README.md"]


def below_title(text: str, lines: str) -> str:
    """Return `text` with a box below its first heading."""
    heading = re.search(r"^# .+\n", text, flags=re.M)
    assert heading, f"a page begins with its title, not with {text[:60]!r}"
    return text[: heading.end()] + box(lines) + text[heading.end() :]


def box(lines: str) -> str:
    return f"\n```{{container}} facts\n{lines}\n```\n"


def facts(number: int, course: Course, introduction: str = "") -> str:
    """Return a lesson's facts: type, minutes, the page's own prerequisites, those found in its code, and links."""
    folder, entry = course.lessons[number], course.entries[number]
    needs = prerequisites(folder, number)
    earlier = [
        f"[lesson {one}]({relative(course.lessons[one] / 'README.md', folder)})"
        if one in course.lessons
        else f"lesson {one}"
        for one in needs.lessons
    ]
    packages = [f"[{name}]({relative(course.root / name, folder)})" for name in needs.packages]
    links = [*(f"[notebook]({name})" for name in notebook(folder)), f"[all files]({LISTING}.md)"]
    if (bundle := bundle_of(folder)).exists():
        links.append(f"[the student's bundle]({bundle.name}) (zip, {bundle.stat().st_size / 1e6:.1f} MB)")
    lines = [
        f"**Type:** {entry.kind}",
        f"**Time:** about {entry.minutes} minutes",
        introduction[:1].upper() + introduction[1:],
        f"**Builds on:** {', '.join(earlier) or 'no earlier lesson'}",
        f"**Uses:** {', '.join(packages)}" if packages else "",
        f"**Open:** {', '.join(links)}",
    ]
    return "\n".join(f"* {line}" for line in lines if line)


def notebook(folder: Path) -> list[str]:
    return ["lesson.ipynb"] if (folder / "lesson.ipynb").exists() else []


def navigation(course: Course) -> str:
    """Return the site's navigation, which the sidebar of every page shows."""
    lessons = [
        f"{number} · {course.entries[number].title.split(':')[0]} <{relative(folder / 'README.md', course.root)}>"
        for number, folder in course.lessons.items()
    ]
    pages = [relative(path, course.root) for path in course.markdown_pages() if course.lesson_of(path) is None]
    captions = {"apps": "Applications", "shared": "Library", "data": "Data", "benchmarks": "Benchmarks"}
    blocks = [toctree(lessons, "Lessons")]
    for folder, caption in captions.items():
        names = [name for name in pages if name.startswith(f"{folder}/")]
        if folder in ("shared", "data") and (course.root / folder).exists():
            names.append(f"All files of {folder} <{folder}/{LISTING}>")
        blocks.append(toctree(names, caption))
    blocks.append(toctree([name for name in pages if name.split("/")[0] not in captions], "Project"))
    return "".join(blocks)


def toctree(names: Iterable[str], caption: str = "") -> str:
    """Return a directive that places pages below this one in the navigation, without showing anything on the page."""
    if not (names := list(names)):
        return ""
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", *options, "", *names, "```", ""])


def relative(path: Path, start: Path) -> str:
    """Return the link from a folder to a file."""
    return Path(os.path.relpath(path, start)).as_posix()
