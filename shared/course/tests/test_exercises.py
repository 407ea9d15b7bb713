"""Test that exercises are found in a lesson's folder and in the files that it names."""

import sys
from types import ModuleType

import pytest
import torch

from shared.course.exercises import FILE_LIST, find_exercises, outside_files, without_solutions
from shared.course.student import Student
from shared.errors import CourseError

SOLUTION = "def {name}(x):\n    # exercise {number}: {name}\n    return x\n    # end exercise\n"


def code(**numbers: str) -> str:
    """Return a module with one function per exercise: name → number."""
    return "".join(SOLUTION.format(name=name, number=number) for name, number in numbers.items())


@pytest.fixture
def lesson(tmp_path):
    """A lesson with exercise 5.1 in its folder, and 5.2 and 7.1 in a shared module that its second part names."""
    folder = tmp_path / "lessons" / "lesson_05_llava"
    (folder / "finetuning").mkdir(parents=True)
    (tmp_path / "shared" / "finetuning").mkdir(parents=True)
    (folder / "model.py").write_text(code(first="5.1"))
    (tmp_path / "shared" / "finetuning" / "lora.py").write_text(code(merge="5.2", later="7.1"))
    (folder / "finetuning" / FILE_LIST).write_text('files = ["shared/finetuning/lora.py"]\n')
    return folder


def test_exercises_of_named_files_are_found(lesson):
    assert [exercise.number for exercise in find_exercises(lesson)] == ["5.1", "5.2"]
    assert [exercise.number for exercise in find_exercises(lesson / "finetuning")] == ["5.2"]
    assert outside_files(lesson) == [lesson.parent.parent / "shared" / "finetuning" / "lora.py"]
    assert find_exercises(lesson)[1].lesson == 5


def test_only_the_requested_solutions_are_taken_out():
    text = without_solutions(code(merge="5.2", later="7.1"), ["5.2"])
    assert text.count("NotImplementedError") == 1 and 'raise NotImplementedError("exercise 5.2: merge")' in text
    assert "# exercise 7.1: later\n    return x\n    # end exercise" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("files = [", "Invalid|Unclosed|expected|Expected"),
        ("", "expected one line"),
        ('file = ["shared/finetuning/lora.py"]', "expected one line"),
        ("files = [1]", "expected one line"),
        ('files = ["shared/nothing.py"]', "'shared/nothing.py' is not a Python file of the repository"),
        ('files = ["../outside.py"]', "is not a Python file of the repository"),
        ('files = ["/etc/hosts"]', "is not a Python file of the repository"),
        ('files = ["lessons/lesson_05_llava/model.py"]', "is in the lesson's folder"),
        ('files = ["shared/other.py"]', "it has no exercise of the lesson"),
    ],
)
def test_invalid_list_of_files_is_explained(lesson, content, message):
    (lesson.parent.parent / "shared" / "other.py").write_text(code(later="7.1"))
    (lesson.parent.parent.parent / "outside.py").write_text(code(merge="5.2"))
    (lesson / FILE_LIST).write_text(content)
    with pytest.raises(CourseError, match=message):
        find_exercises(lesson)


def test_file_in_another_encoding_is_named_with_its_line(lesson):
    (lesson / "solution.py").write_bytes("# one\n# café\n".encode("latin-1"))
    with pytest.raises(CourseError, match=r"solution\.py, line 2: the byte 0xe9 is not UTF-8"):
        find_exercises(lesson)


def test_number_that_occurs_twice_is_rejected(lesson):
    (lesson / "again.py").write_text(code(again="5.2"))
    with pytest.raises(CourseError, match=r"exercise 5\.2 is in .* and in .*lora\.py"):
        find_exercises(lesson)


def test_folder_outside_of_lessons_can_name_no_files(tmp_path):
    (tmp_path / FILE_LIST).write_text("files = []")
    with pytest.raises(CourseError, match="is not in a lesson's folder"):
        find_exercises(tmp_path)


def test_student_reaches_functions_outside_the_lesson(monkeypatch):
    module = ModuleType("shared.made_up")
    module.double = lambda x: 2 * x
    monkeypatch.setitem(sys.modules, "shared.made_up", module)
    student = Student("lesson_05_llava")
    result, gradients = student("shared.made_up:double", x=torch.tensor([3.0]), upstream=torch.tensor([1.0]))
    assert (result.item(), gradients["x"].item()) == (6.0, 2.0)
    with pytest.raises(ModuleNotFoundError, match=r"lessons\.lesson_05_llava\.nothing"):
        student("nothing:double", x=torch.tensor([3.0]))
