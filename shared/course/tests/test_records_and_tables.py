"""Records and the tables on pages: numbers come from `results.json`, wording from the claims."""

import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from shared.course import command_time, lesson_tables
from shared.course.claims import Verdict, number
from shared.course.course_report import count_verdicts
from shared.course.lesson import Arm, Claim, Lesson, Run, lesson_entries, lesson_folder, question
from shared.course.lesson_tables import exercise_totals, headline, lesson_table, prerequisites, syllabus_table
from shared.course.readme import lesson_results, part_results
from shared.course.recorded_results import RecordKey, read_results, recorded_values, recorded_verdicts, write_record
from shared.course.tables import Row, by_question, exact_line, markdown_results, rows_of, terminal_results
from shared.errors import CourseError

CLAIM = Claim(
    name="reads",
    kind="learns",
    sentence="Accuracy of the model on held-out digits.",
    source="here",
    arms=("model",),
    measure=number("model", "accuracy"),
    threshold=0.8,
)
PAPER = replace(CLAIM, name="more", kind="paper", arms=("other",), paper_value="0.82 (CLIP ViT-B/32)")
EXACT = replace(CLAIM, name="equal", kind="exact", show="error", at_least=False, threshold=1e-9)
MACHINE = {"processor": "a chip", "cores": 2, "python": "3", "torch": "2", "commit": "abc"}


def lesson_of_two_parts():
    parts = (Arm("model", "a:b", {"cpu": {}}, part="first"), Arm("other", "a:b", {"cpu": {}}, part="second"))
    return Lesson(1, parts, (CLAIM, PAPER), "reads", "read", dict, {"cpu": "digits"})


def record(claims, arms, data="digits"):
    values = [{"name": name, "values": values, "baselines": []} for name, values in claims.items()]
    costs = {name: {"seconds": [seconds], "peak_memory_mb": memory} for name, (seconds, memory) in arms.items()}
    base = {"date": "today", "data": data, "seeds": [0], "seconds": 20, "machine": MACHINE}
    return base | {"claims": values, "arms": costs}


def test_another_data_set_has_a_record_of_its_own(tmp_path):
    lesson = lesson_of_two_parts()
    run = Run("cpu", "cpu", "digits", (0,), tmp_path, {})
    assert str(RecordKey.of_run(run, lesson)) == "cpu/cpu"
    key = RecordKey.of_run(replace(run, data="clothes"), lesson)
    assert str(key) == "cpu/cpu/clothes" and RecordKey.parse(str(key)) == key
    single = replace(lesson, arms=(Arm("model", "a:b", {}),), claims=(CLAIM,))
    write_record(tmp_path, key, record({"reads": [0.9, 0.9]}, {"model": (20.0, 100)}, "clothes"))
    page = lesson_results(single, tmp_path)
    assert "`make lesson-1 DATA=clothes`" in page
    assert "reproduced" not in page, "thresholds hold for the preset's own data set only"


def test_a_record_keeps_other_records(tmp_path):
    first, second = RecordKey("full", "cpu"), RecordKey("cpu", "cpu")
    write_record(tmp_path, first, record({"reads": [0.9]}, {"model": (20.0, 100)}))
    write_record(tmp_path, second, record({"reads": [0.8]}, {"model": (20.0, 100)}))
    assert list(read_results(tmp_path)) == ["cpu/cpu", "full/cpu"]
    assert recorded_values(tmp_path, first) == {"reads": (0.9,)}
    assert recorded_values(tmp_path, RecordKey("gpu", "cuda")) == {}


def test_a_record_of_a_claim_that_no_longer_exists_is_refused():
    with pytest.raises(CourseError, match="writes, which are no claims of the lesson; measure again"):
        recorded_verdicts(lesson_of_two_parts(), "cpu/cpu", record({"writes": [1.0]}, {}))


def test_each_part_has_its_own_page(tmp_path):
    lesson = lesson_of_two_parts()
    costs = {"model": (30.0, 100), "other": (10.0, 400)}
    results = record({"reads": [0.9, 0.9], "more": [0.7, 0.7]}, costs)
    (tmp_path / "results.json").write_text(json.dumps({"cpu/cpu": results}))
    for part in lesson.parts:
        (tmp_path / part).mkdir()
    first, second = (part_results(lesson, tmp_path, part) for part in lesson.parts)
    assert "*`make lesson-1 PART=first`*: about 15 s per seed, at most 100 MB per run" in first
    assert "*`make lesson-1 PART=second`*: about 5 s per seed, at most 400 MB per run" in second
    assert "90.0 %" in first and "70.0 %" not in first
    assert "70.0 %" in second and "0.82 (CLIP ViT-B/32)" in second
    page = lesson_results(lesson, tmp_path)
    assert "*`make lesson-1`*: about 20 s per seed, at most 400 MB per run" in page
    assert "| [first](first/README.md) | 1 | 0 | 0 | 0 of 0 | 15 |" in page
    assert "| [second](second/README.md) | 0 | 1 | 0 | 0 of 0 | 5 |" in page


def test_the_time_of_the_command_replaces_the_sum_over_the_arms(tmp_path, monkeypatch):
    lesson = lesson_of_two_parts()
    monkeypatch.setattr(command_time, "load_lesson", lambda number: (lesson, tmp_path))
    monkeypatch.setattr(command_time, "run_lesson", lambda request: clock.append(clock[-1] + len(request.part)))
    monkeypatch.setattr(command_time.time, "perf_counter", lambda: clock[-1])
    clock = [100.0]
    with pytest.raises(CourseError, match="run `make results-1` first"):
        command_time.record_command_time(1)
    results = record({"reads": [0.9]}, {"model": (30.0, 100), "other": (10.0, 400)})
    write_record(tmp_path, RecordKey("cpu", "cpu"), results)
    assert command_time.record_command_time(1) == {"first": 5, "second": 6}
    assert read_results(tmp_path)["cpu/cpu"] == results | {"command_seconds": {"first": 5, "second": 6}}
    for part in lesson.parts:
        (tmp_path / part).mkdir()
    assert "*`make lesson-1`*: about 11 s per seed" in lesson_results(lesson, tmp_path)
    assert "*`make lesson-1 PART=first`*: about 5 s per seed" in part_results(lesson, tmp_path, "first")


def test_a_value_of_two_presets_stands_once():
    cpu = Verdict(CLAIM, (0.9, 0.91), (), True)
    full, more = Verdict(CLAIM, (0.95, 0.96), (), True), Verdict(PAPER, (0.9, 0.9), (), True)
    rows = rows_of({"cpu": [cpu], "full": [full, more]})
    assert rows == [Row(cpu), Row(more, "full")]
    text = markdown_results(rows, "make lesson-1")
    assert "(`full`)" in text and "95." not in text


def test_a_judged_value_replaces_one_that_was_only_measured():
    smoke, full = Verdict(CLAIM, (0.5, 0.5), (), False), Verdict(CLAIM, (0.9, 0.9), (), True)
    assert rows_of({"smoke": [smoke], "full": [full]}) == [Row(full, "full")]


def test_rows_are_grouped_by_question_and_identities_take_one_line():
    first, second = question("Can it read?", CLAIM), question("Does size help?", PAPER)
    verdicts = [Verdict(claim, (0.9, 0.9), (), True) for claim in (*first, *second)]
    identity = Verdict(EXACT, (1e-12,), (), True)
    rows = [Row(verdict) for verdict in (*verdicts, identity)]
    assert list(by_question(rows)) == ["Can it read?", "Does size help?"]
    text = markdown_results(rows, "make lesson-1")
    assert "1 identity (largest difference 1.0e-12) holds; `make lesson-1` lists it." in text
    counts = count_verdicts(rows)
    assert (counts["reproduced"], counts["exact"], counts["failed exact"]) == (2, 1, 0)


def test_a_bound_is_no_identity_and_has_no_part_in_the_largest_difference():
    bound = Verdict(replace(EXACT, name="less", show="number", threshold=5.0), (1.9,), (), True)
    count = Verdict(replace(EXACT, name="none", show="number", threshold=0.0), (0.0,), (), True)
    difference = Verdict(EXACT, (1e-12,), (), True)
    expected = "2 identities (largest difference 1.0e-12) and 1 bound hold; `make lesson-1` lists them."
    assert exact_line([difference, count, bound], "make lesson-1") == expected
    assert exact_line([bound], "make lesson-1") == "1 bound holds; `make lesson-1` lists it."
    text = markdown_results([Row(difference), Row(bound)], "make lesson-1")
    assert "<summary>The identities and bounds</summary>" in text


def test_an_identity_that_does_not_hold_is_named():
    broken = Verdict(EXACT, (1e-3,), (), True)
    assert exact_line([broken], "make lesson-1") == "1 of 1 identities do not hold: equal."
    assert count_verdicts([Row(broken)])["failed exact"] == 1


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_cuts_no_word(width):
    verdicts = [Verdict(claim, (0.901, 0.9), (), True) for claim in (CLAIM, PAPER, EXACT)]
    verdicts.append(Verdict(replace(CLAIM, name="one"), (0.95,), (), True, recorded=(0.94, 0.95)))
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(terminal_results(verdicts))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    words = set(capture.get().split())
    assert {"reproduced", "within", "digits.", "threshold"} <= words


def test_the_front_page_has_the_value_of_the_lessons_page(tmp_path):
    """Of a claim that several presets measured, both pages show the value of the smallest preset."""
    lesson = replace(lesson_of_two_parts(), arms=(Arm("model", "a:b", {}),), claims=(CLAIM,))
    for preset, value in (("full", 0.95), ("cpu", 0.9)):
        entry = record({"reads": [value, value]}, {"model": (20.0, 100)})
        write_record(tmp_path, RecordKey(preset, "cpu"), entry)
    _, value = headline(replace(lesson, number=99, headline="reads"), tmp_path)
    assert value == "90.0 % ± 0.0" and value in lesson_results(replace(lesson, number=99), tmp_path)


def test_minutes_and_prerequisites_are_those_of_the_lessons_page(tmp_path):
    folder = tmp_path / "lessons" / "lesson_99_small"
    folder.mkdir(parents=True)
    lines = [f"# exercise 99.{n}: part {n}\nx = {n}\n# end exercise" for n in (1, 2)]
    (folder / "code.py").write_text("\n".join(lines))
    page = "Learn · about 9 minutes · prerequisites: [lesson 2](../x) (CLIP), sets · [notebook](lesson.ipynb)\n\n"
    rows = ["| 99.1 | part 1 | 2 | 10 | here |", "| 99.2 | part 2 | 3 | 25 | here |"]
    (folder / "README.md").write_text(page + rows[0] + "\n")
    with pytest.raises(CourseError, match=r"no page lists exercise 99\.2"):
        exercise_totals(folder)
    (folder / "README.md").write_text(page + "\n".join(rows) + "\n")
    totals = exercise_totals(folder)
    assert (totals.count, totals.minutes, totals.points) == (2, 35, 5)
    assert prerequisites(folder) == "lesson 2 (CLIP), sets"
    (folder / "README.md").write_text("Learn · about 9 minutes")
    with pytest.raises(CourseError, match="names no prerequisites"):
        prerequisites(folder)


def test_the_syllabus_has_a_row_per_finished_lesson():
    finished = [entry.number for entry in lesson_entries() if lesson_folder(entry.number) and entry.measured]
    assert [int(number) for number in re.findall(r"^\| (\d+) \[", syllabus_table(), flags=re.M)] == finished


def test_the_front_page_separates_finished_lessons_from_planned_ones(monkeypatch):
    """A lesson in progress has a page to link to, but no results; it is among the planned ones."""
    entries = lesson_entries()
    built = [entry.number for entry in entries if lesson_folder(entry.number)]
    in_progress = [replace(entry, measured=entry.measured and entry.number != built[-1]) for entry in entries]
    monkeypatch.setattr(lesson_tables, "lesson_entries", lambda: in_progress)
    finished, planned = lesson_table().split("<details>")
    ready = [entry.number for entry in in_progress if entry.number in built and entry.measured]
    numbers = [
        [int(number) for number in re.findall(r"^\| (\d+) \|", part, flags=re.M)] for part in (finished, planned)
    ]
    assert numbers == [ready, [entry.number for entry in entries if entry.number not in ready]]
    assert f"**{len(ready)} of {len(entries)} lessons are finished" in finished
    assert re.search(rf"^\| {built[-1]} \| \[.*\]\(.*\), in progress \|", planned, flags=re.M)
