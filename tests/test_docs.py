"""Pages agree with the repository: generated numbers are the recorded ones, and links, figures and targets exist."""

import hashlib
import re
import subprocess
from urllib.parse import unquote

import pytest

from shared.course.lesson import ROOT, lesson_entries, lesson_folder, load_lesson
from shared.course.readme import BEGIN, END, generated_pages, read_results, replace_generated
from shared.errors import CourseError

# Folders that are not pages of the course: environments, runs, bundles, pages with gaps, caches.
EXCLUDED = {".venv", ".venv-site", "runs", "dist", "build", "handout", ".pytest_cache", "cache", "template"}
PAGES = sorted(path for path in ROOT.rglob("*.md") if not EXCLUDED & set(path.parts))
MEASURED = [entry.number for entry in lesson_entries() if lesson_folder(entry.number) and entry.measured]


def test_generated_parts_are_the_recorded_results():
    for path, text in generated_pages().items():
        message = f"{path.name} differs from the results: run python -m shared.course.results --readme"
        assert path.read_text(encoding="utf-8") == text, message


def test_a_changed_number_is_noticed():
    page = f"before\n{BEGIN}\n98.1 %\n{END}\nafter"
    assert replace_generated(page, "98.1 %", "page") == page
    assert replace_generated(page, "98.2 %", "page") != page
    with pytest.raises(CourseError, match="exactly one"):
        replace_generated("no markers", "", "page")


@pytest.mark.parametrize("number", MEASURED)
def test_figures_are_the_recorded_ones(number):
    """A figure has the hash in the newest record that names it."""
    folder = lesson_folder(number)
    recorded: dict[str, set[str]] = {}
    for result in read_results(folder).values():
        for name, digest in result["figures"].items():
            recorded.setdefault(name, set()).add(digest)
    assert recorded
    for name, digests in recorded.items():
        assert hashlib.sha256((folder / "figures" / name).read_bytes()).hexdigest() in digests, f"{name} has changed"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_images_exist(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / unquote(name)).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name} links to {target}: no such heading"


# Pages whose folder has no test of its README.
@pytest.mark.parametrize("folder", ["shared/attention", "shared/plots", "shared/pretrained", "shared/transformer"])
def test_python_examples_run(folder, tmp_path, monkeypatch, capsys):
    """The blocks of a page run in order, as one program."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / folder / "README.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert blocks
    exec("\n".join(blocks), {"__name__": "example"})


def test_the_table_of_data_has_the_data_sets_of_every_measured_lesson():
    table = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for number in MEASURED:
        (row,) = re.findall(rf"^\| {number} \| (.+) \|$", table, flags=re.M)
        default, others, gpu = (set(re.findall("`([a-z0-9_:]+?)(?:PATH)?`", cell)) for cell in row.split("|"))
        lesson = load_lesson(number)[0]
        assert default == {lesson.data_sets["cpu"]}, number
        assert gpu == ({lesson.data_sets["gpu"]} if "gpu" in lesson.data_sets else set()), number
        expected = {name.removesuffix("PATH") for name in lesson.other_data_sets}
        assert expected <= others <= expected | set(lesson.data_sets.values()), number


def test_every_make_target_on_a_page_exists():
    # The course's targets, and those of the bundle that students get.
    makefiles = [ROOT / "Makefile", ROOT / "shared" / "teaching" / "handout" / "Makefile"]
    lines = "\n".join(path.read_text(encoding="utf-8") for path in makefiles)
    targets = {name.replace("%", "") for name in re.findall(r"^([a-z%-]+):", lines, flags=re.M)}
    for page in PAGES:
        for name in re.findall(r"(?:^|`)make ([a-z]+(?:-[a-z]+)*-?)", page.read_text(encoding="utf-8"), flags=re.M):
            assert name in targets, f"{page.relative_to(ROOT)} names make {name}"


def test_make_alone_lists_every_target():
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = re.findall(r"^([a-zA-Z%-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    assert len(targets) > 10
    for target in targets:
        assert f"make {target.replace('%', 'N')} " in listed
