"""The pages that are written for the site, before it is built."""

import os
import re
from pathlib import PurePosixPath

from shared.course.lesson import ROOT
from shared.course.site.pages import SOURCE, Course, contents, first_paragraph
from shared.course.site.prerequisites import Prerequisites, prerequisites


def pages_of(root):
    return {
        name: content.decode() for name, content in contents(Course.at(root)) if not name.endswith((".png", ".zip"))
    }


def test_prerequisites_are_read_from_the_code(tmp_path):
    folder = tmp_path / "lessons/lesson_05_llava"
    for name in ("shared/attention", "shared/course", "data/toybox", "lessons/lesson_05_llava/tests"):
        (tmp_path / name).mkdir(parents=True)
    (folder / "model.py").write_text(
        "import data.toybox.scene\nfrom lessons.lesson_01_vit.model import VisionTransformer\n"
        "from lessons.lesson_05_llava import arms\nfrom shared.attention import Mask\n"
        "from shared.course.lesson import Lesson\n"
        "from shared.errors import CourseError\n"
    )
    (folder / "checkpoint.py").write_text(
        '"""Not lesson_04_x.y, which is only named in this text."""\nPARENTS = ("lesson_00_decoder",)\n'
    )
    (folder / "experiment.py").write_text('ARM = "lessons.lesson_02_clip.experiment:train"\n')
    (folder / "tests/test_model.py").write_text("from lessons.lesson_03_blip2 import model\nimport shared.pretrained\n")
    assert prerequisites(folder, 5) == Prerequisites((0, 1, 2), ("data/toybox", "shared/attention"))


def test_the_box_of_facts_replaces_the_line_below_the_title(course):
    page = pages_of(course)["lessons/lesson_01_example/README.md"]
    assert "Learn · about" not in page
    facts = page[page.index("```{container}") : page.index("## The problem")]
    assert "**Type:** Learn" in facts and "**Time:** about 120 minutes" in facts
    assert "For people who read" in facts and "no earlier lesson" in facts
    assert "[shared/package](../../shared/package)" in facts and "[notebook](lesson.ipynb)" in facts
    assert "bundle" not in facts


def test_the_line_may_link_to_lessons_and_omit_the_notebook(course):
    page = course / "lessons/lesson_01_example/README.md"
    line = "Build · about 180 minutes · stands on [lesson 0](../lesson_00/README.md) (a model)"
    page.write_text(f"# Lesson 1 · An example\n\n{line}\n\n## The problem\n\nIt is · about 5 minutes · long.\n")
    text = pages_of(course)["lessons/lesson_01_example/README.md"]
    assert "Build · about" not in text and "* Stands on [lesson 0](../lesson_00/README.md) (a model)\n" in text


def test_the_students_bundle_can_be_downloaded_once_it_is_made(course):
    (course / "dist").mkdir()
    (course / "dist/lesson_01_example.zip").write_bytes(b"zip")
    assert "[the student's bundle](lesson_01_example.zip)" in pages_of(course)["lessons/lesson_01_example/README.md"]
    assert dict(contents(Course.at(course)))["lessons/lesson_01_example/lesson_01_example.zip"] == b"zip"


def test_source_files_have_pages_and_every_folder_a_listing(course):
    pages = pages_of(course)
    assert pages["LICENSE.source"] == "Do what you like.\n"
    assert pages["lessons/lesson_01_example/model/parts.py.source"].endswith("import module\n")
    assert "[`model/`](model/files.md)" in pages["lessons/lesson_01_example/files.md"]
    assert "[`parts.py`](parts.py): Parts of \\*it\\*, `a * b`." in pages["lessons/lesson_01_example/model/files.md"]
    assert "[`module.py`](module.py)" in pages["shared/bare/files.md"]


def test_every_page_is_in_the_navigation(course):
    pages = pages_of(course)
    assert (
        "1 · Vision Transformers and the patch-token primitive <lessons/lesson_01_example/README.md>"
        in pages["README.md"]
    )
    assert "\nshared/package/README.md\n" in pages["README.md"] and "notes" not in pages["README.md"]
    lesson = pages["lessons/lesson_01_example/README.md"]
    assert "\nnotes/README.md\n" in lesson and "\nNotebook <lesson.ipynb>\n" in lesson
    assert "**Part of:** [lesson 1](../README.md)" in pages["lessons/lesson_01_example/notes/README.md"]


def test_every_link_of_the_courses_pages_leads_to_a_page():
    """A missing page would stop the build, which few machines can run."""
    course = Course.at(ROOT)
    names = {name.removesuffix(SOURCE) for name, _ in contents(course)}
    names |= {str(folder) for name in names for folder in PurePosixPath(name).parents}
    missing = []
    for page in (ROOT / "README.md", *course.markdown_pages()):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s#:]+)(?=[)#])", text):
            if os.path.relpath(os.path.join(page.parent, target), ROOT) not in names:
                missing.append(f"{page.relative_to(ROOT)} → {target}")
    assert not missing, missing


def test_caches_and_hidden_files_are_excluded(course):
    for name in ("data/cache/big.md", "shared/__pycache__/x.py", "shared/.hidden/x.md", "runs/report.md", ".venv/x.md"):
        (course / name).parent.mkdir(parents=True, exist_ok=True)
        (course / name).write_text("# x\n")
    names = pages_of(course).keys()
    assert [name for name in names if "cache" in name or "hidden" in name or name.startswith(("runs", ".venv"))] == []


def test_the_first_paragraph_renders_to_the_same_characters(tmp_path):
    (tmp_path / "part.py").write_text('"""Makes [b, c] of\n$x$: `k * d`, <y>_z.\n\nAnd more."""\n')
    (tmp_path / "silent.py").write_text("x = 1\n")
    assert first_paragraph(tmp_path / "part.py") == r"Makes \[b, c\] of \$x\$: `k * d`, \<y>\_z."
    assert first_paragraph(tmp_path / "silent.py") == ""
