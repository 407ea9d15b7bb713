"""Test that what a student hands in or returns cannot cost the grader more than a little time and memory."""

import time

import pytest
import torch

from shared.course.exercises import without_solutions
from shared.course.lesson import ROOT
from shared.teaching import messages
from shared.teaching.grading_copy import write_grading_copy
from shared.teaching.isolation.sandbox import Limits
from shared.teaching.isolation.student_process import StudentError, StudentProcess
from shared.teaching.markers import exercise_code, exercise_ranges, exercises_of
from shared.teaching.messages import HEADER, MessageError
from shared.teaching.run_tests import fork_server

LESSON, FUNCTION = "lesson_01_vit", "model.patches:patchify"


@pytest.fixture
def started(tmp_path):
    """Return a function that starts a process whose exercise 1.3 has the given body."""
    processes = []

    def start(body: str, limits: Limits) -> StudentProcess:
        exercise = next(each for each in exercises_of(1) if each.number == "1.3")
        text = exercise.path.read_text(encoding="utf-8")
        submitted = text.replace(exercise_code(text, "1.3"), body)
        write_grading_copy(tmp_path, exercise, submitted, exercises_of(1), frozenset())
        processes.append(StudentProcess(fork_server(), tmp_path, LESSON, [], limits))
        return processes[-1]

    yield start
    for process in processes:
        process.stop()


def call(process: StudentProcess) -> torch.Tensor:
    return process(FUNCTION, images=torch.zeros(1, 1, 2, 2), patch_size=1)


@pytest.mark.parametrize("line", ["# exercise 1.1: x{}x\n# end exercise", "{}x", "# end exercise{}x", "\t{}# exercise"])
def test_long_lines_take_linear_time(line):
    text = line.format(" " * 60_000) + "\n"
    begin = time.process_time()
    exercise_ranges(text)
    without_solutions(text)
    assert time.process_time() - begin < 1


def test_titles_of_markers_are_unchanged():
    text = "    # exercise 1.1: a title \r\n    x = 1\n    # end exercise \n"
    assert exercise_ranges(text) == {"1.1": (1, 2)}
    assert 'NotImplementedError("exercise 1.1: a title")' in without_solutions(text)
    assert exercise_ranges("# exercise 1.1:  \n# end exercise\n") == {}, "without a title it is no marker"


def test_calls_of_one_exercise_share_their_time(started):
    process = started("    import time; time.sleep(0.4); return images\n", Limits(seconds=30, exercise_seconds=1))
    call(process)
    begin = time.monotonic()
    with pytest.raises(StudentError, match="1 s in all calls together"):
        for _ in range(20):
            call(process)
    assert time.monotonic() - begin < 6


def test_one_call_has_its_own_limit(started):
    process = started("    import time; time.sleep(60); return images\n", Limits(seconds=1, exercise_seconds=30))
    with pytest.raises(StudentError, match=r"longer than 1 s$"):
        call(process)


def test_large_answer_is_an_error(started):
    process = started("    import torch; return torch.zeros(2**21)\n", Limits())
    with pytest.raises(StudentError, match=r"8,388,608 bytes of tensors; at most [\d,]+ are read"):
        call(process)


@pytest.mark.parametrize("sizes", [(messages.MAX_TEXT_SIZE + 1, 0), (0, messages.MAX_TENSOR_SIZE + 1)])
def test_size_is_checked_before_anything_is_read(sizes, tmp_path):
    path = tmp_path / "message"
    path.write_bytes(HEADER.pack(*sizes))
    with path.open("rb") as file, pytest.raises(MessageError, match="at most"):
        messages.receive(file.fileno())


def test_dicts_are_small():
    """Integers that are multiples of 2⁶¹ − 1 have the same hash: a large dict of them takes minutes."""
    entries = [[key * (2**61 - 1), 0] for key in range(messages.MAX_ENTRIES + 1)]
    with pytest.raises(MessageError, match="entries"):
        messages.decode(str({"dict": entries}).replace("'", '"').encode(), b"")


def test_limits_of_the_course_are_the_defaults():
    assert "exercise_seconds = 120" in (ROOT / "course.toml").read_text(encoding="utf-8")
    assert Limits().exercise_seconds == 120
