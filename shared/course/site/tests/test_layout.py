"""What is laid out for the site, before anything is built of it."""

import os
import re
from pathlib import PurePosixPath

from shared.course.lesson import ROOT
from shared.course.site.listing import first_words
from shared.course.site.pages import SOURCE, Course, contents
from shared.course.site.prerequisites import Prerequisites, prerequisites


def laid_out(root):
    return {
        name: content.decode() for name, content in contents(Course.at(root)) if not name.endswith((".png", ".zip"))
    }


def test_prerequisites_are_read_from_the_code(tmp_path):
    folder = tmp_path / "lessons/lesson_05_llava"
    for name in ("shared/attention", "shared/course", "data/toybox", "lessons/lesson_05_llava/tests"):
        (tmp_path / name).mkdir(parents=True)
    (folder / "model.py").write_text(
        "import data.toybox.scene\nfrom lessons.lesson_01_vit.model import VisionTransformer\n"
        "from lessons.lesson_05_llava import arms\nfrom shared.attention import Mask\nfrom shared.course.lesson import Lesson\n"
        "from shared.errors import CourseError\n"
    )
    (folder / "checkpoint.py").write_text(
        '"""Not lesson_04_x.y, which is but named here."""\nPARENTS = ("lesson_00_decoder",)\n'
    )
    (folder / "experiment.py").write_text('ARM = "lessons.lesson_02_clip.experiment:train"\n')
    (folder / "tests/test_model.py").write_text("from lessons.lesson_03_blip2 import model\nimport shared.pretrained\n")
    assert prerequisites(folder, 5) == Prerequisites((0, 1, 2), ("data/toybox", "shared/attention"))


def test_a_lesson_says_its_facts_in_the_place_of_the_line_that_says_the_like(course):
    page = laid_out(course)["lessons/lesson_01_example/README.md"]
    assert "Learn · about" not in page
    facts = page[page.index("```{container}") : page.index("## The problem")]
    assert "**Type:** Learn" in facts and "**Time:** about 120 minutes" in facts
    assert "For people who read" in facts and "no earlier lesson" in facts
    assert "[shared/room](../../shared/room)" in facts and "[notebook](lesson.ipynb)" in facts
    assert "bundle" not in facts


def test_that_line_may_name_lessons_and_no_notebook(course):
    page = course / "lessons/lesson_01_example/README.md"
    line = "Build · about 180 minutes · stands on [lesson 0](../lesson_00/README.md) (a model)"
    page.write_text(f"# Lesson 1 · An example\n\n{line}\n\n## The problem\n\nIt is · about 5 minutes · long.\n")
    shown = laid_out(course)["lessons/lesson_01_example/README.md"]
    assert "Build · about" not in shown and "* Stands on [lesson 0](../lesson_00/README.md) (a model)\n" in shown


def test_the_students_bundle_is_there_to_download_once_it_is_made(course):
    (course / "dist").mkdir()
    (course / "dist/lesson_01_example.zip").write_bytes(b"zip")
    assert "[the student's bundle](lesson_01_example.zip)" in laid_out(course)["lessons/lesson_01_example/README.md"]
    assert dict(contents(Course.at(course)))["lessons/lesson_01_example/lesson_01_example.zip"] == b"zip"


def test_code_has_pages_and_every_folder_a_list(course):
    pages = laid_out(course)
    assert pages["LICENSE.source"] == "Do what you like.\n"
    assert pages["lessons/lesson_01_example/model/parts.py.source"].endswith("import door\n")
    assert "[`model/`](model/files.md)" in pages["lessons/lesson_01_example/files.md"]
    assert "[`parts.py`](parts.py): Parts of \\*it\\*, `a * b`." in pages["lessons/lesson_01_example/model/files.md"]
    assert "[`thing.py`](thing.py)" in pages["shared/bare/files.md"]


def test_every_page_stands_below_another(course):
    pages = laid_out(course)
    assert (
        "1 · Vision Transformers and the patch-token primitive <lessons/lesson_01_example/README.md>"
        in pages["README.md"]
    )
    assert "\nshared/room/README.md\n" in pages["README.md"] and "notes" not in pages["README.md"]
    lesson = pages["lessons/lesson_01_example/README.md"]
    assert "\nnotes/README.md\n" in lesson and "\nNotebook <lesson.ipynb>\n" in lesson
    assert "**Part of:** [lesson 1](../README.md)" in pages["lessons/lesson_01_example/notes/README.md"]


def test_all_that_the_courses_own_pages_link_to_is_laid_out():
    """A page that is not there would stop the build, which few machines can try."""
    course = Course.at(ROOT)
    names = {name.removesuffix(SOURCE) for name, _ in contents(course)}
    names |= {str(folder) for name in names for folder in PurePosixPath(name).parents}
    lost = []
    for page in (ROOT / "README.md", *course.prose()):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s#:]+)(?=[)#])", text):
            if os.path.relpath(os.path.join(page.parent, target), ROOT) not in names:
                lost.append(f"{page.relative_to(ROOT)} → {target}")
    assert not lost, lost


def test_what_others_have_left_is_not_laid_out(course):
    for name in ("data/cache/big.md", "shared/__pycache__/x.py", "shared/.hidden/x.md", "runs/report.md", ".venv/x.md"):
        (course / name).parent.mkdir(parents=True, exist_ok=True)
        (course / name).write_text("# x\n")
    names = laid_out(course).keys()
    assert [name for name in names if "cache" in name or "hidden" in name or name.startswith(("runs", ".venv"))] == []


def test_the_first_words_of_a_module_show_the_same_characters(tmp_path):
    (tmp_path / "part.py").write_text('"""Makes [b, c] of\n$x$: `k * d`, <y>_z.\n\nAnd more."""\n')
    (tmp_path / "silent.py").write_text("x = 1\n")
    assert first_words(tmp_path / "part.py") == r"Makes \[b, c\] of \$x\$: `k * d`, \<y>\_z."
    assert first_words(tmp_path / "silent.py") == ""
