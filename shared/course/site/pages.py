"""Lay out what the site is made of: the course's own pages and notebooks as they stand, a page for every file of code,
and what only the site says: a lesson's facts below its title, a list of each folder, and the way through it all.
"""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from shared.course.lesson import Entry, entries
from shared.course.site.prerequisites import prerequisites

FOLDERS = ("lessons", "shared", "data", "benchmarks")
AT_THE_TOP = ("README.md", "LICENSE", "Makefile", "course.toml", "pyproject.toml", "requirements.txt")
LEFT_OUT = {"__pycache__", "cache", "checkpoints", ".ipynb_checkpoints"}
PAGES, CODE, OTHERS = {".md", ".ipynb"}, {".py", ".toml", ".txt", ""}, {".png", ".svg", ".gif", ".jpg", ".json", ".gz"}
SOURCE = ".source"
"""What a file of code is called among the pages: model.py.source becomes the page model.py.html."""
FACTS_LINE = re.compile(r"^(?:Learn|Build|Capstone) · about \d+ minutes · (.+) · \[notebook\]\(lesson\.ipynb\)\n", re.M)
LISTING = "files"
"""The page that lists a folder."""


def lay_out(root: Path, place: Path) -> int:
    """Write the pages of the course at `root` into the folder `place`, touch nothing that is the same, and count them."""
    wanted = dict(contents(root))
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and path.relative_to(place).as_posix() not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = place / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return sum(name.endswith((*PAGES, SOURCE)) for name in wanted)


def contents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of everything that the site is made of."""
    known, folders = {entry.number: entry for entry in entries()}, lesson_folders(root)
    for path in course_files(root):
        name, content = path.relative_to(root).as_posix(), path.read_bytes()
        if path.suffix in CODE:
            if content:
                yield name + SOURCE, content
        elif path.name != "README.md":
            yield name, content
        else:
            yield name, with_site_parts(content.decode(), path, root, folders, known).encode()
    for number, folder in folders.items():
        if (bundle := bundle_of(folder)).exists():
            yield f"{folder.relative_to(root).as_posix()}/{bundle.name}", bundle.read_bytes()
        assert number in known, f"{folder.name} is not in lessons.toml"
    for folder in sorted({folder for path in course_files(root) for folder in path.parents if root in folder.parents}):
        yield f"{folder.relative_to(root).as_posix()}/{LISTING}.md", listing(folder, root).encode()


def course_files(root: Path) -> list[Path]:
    """The files that pages are made of, or may show and link to."""
    found = [root / name for name in AT_THE_TOP if (root / name).exists()]
    for top in FOLDERS:
        for where, folders, names in os.walk(root / top):
            folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.startswith("."))
            paths = [Path(where) / name for name in sorted(names) if not name.startswith(".")]
            found += [path for path in paths if path.suffix in PAGES | CODE | OTHERS]
    return found


def lesson_folders(root: Path) -> dict[int, Path]:
    """Every lesson that has a page, by its number."""
    found = sorted((root / "lessons").glob("lesson_[0-9][0-9]_*/README.md"))
    return {int(path.parent.name.split("_")[1]): path.parent for path in found}


def parts(folder: Path) -> list[Path]:
    """The pages below a lesson's own, in the order in which that one links to them."""
    links = re.findall(r"\]\((\w+/README\.md)\)", (folder / "README.md").read_text(encoding="utf-8"))
    known = [folder / link for link in dict.fromkeys(links) if (folder / link).exists()]
    return known + sorted(set(folder.glob("*/README.md")) - set(known))


def bundle_of(folder: Path) -> Path:
    """Where `make assign-N` leaves the student's bundle of a lesson."""
    return folder.parents[1] / "dist" / f"{folder.name}.zip"


def with_site_parts(text: str, page: Path, root: Path, folders: dict[int, Path], known: dict[int, Entry]) -> str:
    """A README with what the site adds: a lesson's facts, and the pages that stand below this one."""
    if page.parent == root:
        return text + front_contents(root, folders, known)
    for number, folder in folders.items():
        if page.parent == folder:
            below = [relative(part, folder) for part in parts(folder)] + [
                f"Notebook <{name}>" for name in notebook(folder)
            ]
            return with_facts(text, folder, known[number], folders) + toctree(below)
        if folder in page.parents:
            return below_title(text, f"* **Part of:** [lesson {number}]({relative(folder / 'README.md', page.parent)})")
    return below_title(text, f"* **Code:** [all files]({LISTING}.md)")


def with_facts(text: str, folder: Path, entry: Entry, folders: dict[int, Path]) -> str:
    """A lesson's page with its facts in a box, which takes the place of the line that says the like of them."""
    if said := FACTS_LINE.search(text):
        return text[: said.start()] + box(facts(folder, entry, folders, said[1])) + text[said.end() :]
    return below_title(text, facts(folder, entry, folders))


def below_title(text: str, lines: str) -> str:
    """`text` with a box below its first heading."""
    heading = re.search(r"^# .+\n", text, flags=re.M)
    assert heading, f"a page begins with its title, not with {text[:60]!r}"
    return text[: heading.end()] + box(lines) + text[heading.end() :]


def box(lines: str) -> str:
    return f"\n```{{container}} facts\n{lines}\n```\n"


def facts(folder: Path, entry: Entry, folders: dict[int, Path], says: str = "") -> str:
    """Type, minutes, what the page `says` of prerequisites and what the code shows of them, and what can be opened."""
    needs = prerequisites(folder, entry.number)
    earlier = [
        f"[lesson {number}]({relative(folders[number] / 'README.md', folder)})"
        if number in folders
        else f"lesson {number}"
        for number in needs.lessons
    ]
    rooms = [f"[{room}]({relative(folder.parents[1] / room, folder)})" for room in needs.rooms]
    opened = [f"[notebook]({link})" for link in notebook(folder)] + [f"[all files]({LISTING}.md)"]
    if (bundle := bundle_of(folder)).exists():
        opened.append(f"[the student's bundle]({bundle.name}) (zip, {bundle.stat().st_size / 1e6:.1f} MB)")
    lines = [
        f"* **Type:** {entry.kind}",
        f"* **Time:** about {entry.minutes} minutes",
        f"* **Asks:** {says}" if says else "",
        f"* **Builds on:** {', '.join(earlier) or 'no earlier lesson'}",
        f"* **Uses:** {', '.join(rooms)}" if rooms else "",
        f"* **Open:** {', '.join(opened)}",
    ]
    return "\n".join(line for line in lines if line)


def notebook(folder: Path) -> list[str]:
    return ["lesson.ipynb"] if (folder / "lesson.ipynb").exists() else []


def front_contents(root: Path, folders: dict[int, Path], known: dict[int, Entry]) -> str:
    """The way through the site, as the front page and the side of every other one show it."""
    lessons = [
        f"{number} · {known[number].title.split(':')[0]} <{relative(folder / 'README.md', root)}>"
        for number, folder in folders.items()
    ]
    others = [path for path in course_files(root) if path.suffix == ".md" and path.parent != root]
    others = [relative(path, root) for path in others if not any(folder in path.parents for folder in folders.values())]
    records = [name for name in others if name.startswith("benchmarks/")]
    rooms = [name for name in others if name not in records]
    rooms += [f"All the code of {top} <{top}/{LISTING}>" for top in ("shared", "data")]
    return toctree(lessons, "Lessons") + toctree(rooms, "What lessons stand on") + toctree(records, "Records")


def toctree(names: list[str], caption: str = "") -> str:
    if not names:
        return ""
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", *options, "", *names, "```", ""])


def listing(folder: Path, root: Path) -> str:
    """A page that lists what is in a folder, each file of code with the first sentence that it says about itself."""
    lines = ["---", "orphan: true", "no-search: true", "---", f"# {folder.relative_to(root).as_posix()}", ""]
    here = [path for path in course_files(root) if folder in path.parents and path.parent == folder]
    below = {path.relative_to(folder).parts[0] for path in course_files(root) if folder in path.parents[1:]}
    if folder.parent != root:
        lines.append(f"* [..](../{LISTING}.md)")
    lines += [f"* [{name}/]({name}/{LISTING}.md)" for name in sorted(below)]
    for path in here:
        says = f": {sentence}" if path.suffix == ".py" and (sentence := first_sentence(path)) else ""
        if path.suffix in PAGES | CODE and path.stat().st_size:
            lines.append(f"* [{path.name}]({path.name}){says}")
    return "\n".join(lines) + "\n"


def first_sentence(path: Path) -> str:
    """How a module begins to describe itself, as plain Markdown."""
    said = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    # Shapes and the like are code to Markdown, too; a star or an underline on its own is not.
    return re.sub(r"([*_$<\[\\])", r"\\\1", " ".join(said.split())) if "`" not in said else " ".join(said.split())


def relative(path: Path, start: Path) -> str:
    """The link from a folder to a file."""
    return Path(os.path.relpath(path, start)).as_posix()
