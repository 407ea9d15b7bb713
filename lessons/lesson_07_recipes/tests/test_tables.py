"""The published tables, and the parser that refuses malformed ones."""

import csv
from statistics import fmean

import pytest

from lessons.lesson_07_recipes.recipes.choices import AXES, CHOICES
from lessons.lesson_07_recipes.recipes.table import (
    FOLDER,
    NOISE_FILE,
    POINTS,
    STATEMENT_FILE,
    load_tables,
    read_noise,
    read_rows,
    read_statements,
)
from shared.errors import CourseError

PAPERS = {
    "MM1": "2403.09611",
    "Idefics2": "2405.02246",
    "Cambrian-1": "2406.16860",
    "Prismatic": "2402.07865",
    "Molmo": "2409.17146",
}


@pytest.fixture(scope="module")
def tables():
    return load_tables()


@pytest.fixture
def changed(tmp_path):
    """Write a published file with one cell changed, or with another text, and return its path."""

    def write(name, line=None, column=None, value=None, *, extra=""):
        with (FOLDER / name).open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        if line is not None:
            lines[line - 1][lines[0].index(column)] = value
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
            file.write(extra)
        return path

    return write


# ── What the tables hold ─────────────────────────────────────────────────────────────────────────────────────────────


def test_five_papers_are_compared_on_every_axis(tables):
    assert {row.paper: row.arxiv for row in tables.rows} == PAPERS
    comparisons = {(row.paper, row.axis, row.choice, row.setting_a, row.setting_b, row.fixed) for row in tables.rows}
    assert len(comparisons) == 106
    for axis in AXES:
        assert len({paper for paper, on_axis, *_ in comparisons if on_axis == axis}) >= 2, axis


def test_every_number_is_marked_as_reported(tables):
    assert {each.status for each in (*tables.rows, *tables.statements, *tables.noise)} == {"reported"}


def test_every_choice_has_evidence(tables):
    evidence = {row.choice for row in tables.rows} | {statement.choice for statement in tables.statements}
    assert evidence == set(CHOICES)


def test_one_setting_has_one_value_wherever_it_stands(tables):
    """The same settings in the same surroundings, entered for several comparisons, have the same score."""
    values = {}
    for row in tables.rows:
        for setting, value in ((row.setting_a, row.value_a), (row.setting_b, row.value_b)):
            key = (row.paper, setting, row.fixed, row.benchmark)
            assert values.setdefault(key, value) == value, key


# Averages that Cambrian-1 prints beside its 16 benchmarks (tables 9 to 14), in which MME counts 1/20.
CAMBRIAN_AVERAGES = {
    ("connector-pretraining", "CLIP ViT-L at 336 px"): (48.37, 50.49),
    ("connector-pretraining", "SigLIP-SO400M at 384 px"): (47.57, 53.91),
    ("connector-pretraining", "DINOv2 ViT-L at 336 px"): (41.18, 41.85),
    ("train-vision-encoder", "SigLIP-SO400M at 384 px"): (53.91, 55.27),
    ("train-vision-encoder", "DINOv2 ViT-L at 336 px"): (41.85, 43.26),
    ("train-vision-encoder", "ConvNeXt-L at 512 px"): (49.16, 52.76),
}


@pytest.mark.parametrize(("key", "averages"), CAMBRIAN_AVERAGES.items())
def test_benchmarks_of_cambrian_give_its_printed_averages(tables, key, averages):
    choice, start = key
    rows = [row for row in tables.rows if (row.paper, row.choice) == ("Cambrian-1", choice)]
    rows = [row for row in rows if row.fixed.startswith(start) and "5M" not in row.fixed]
    assert len(rows) == 16
    assert fmean(row.value_a * POINTS[row.unit] for row in rows) == pytest.approx(averages[0], abs=0.06)
    assert fmean(row.value_b * POINTS[row.unit] for row in rows) == pytest.approx(averages[1], abs=0.06)


def test_benchmarks_of_idefics2_give_its_printed_averages(tables):
    rows = [row for row in tables.rows if (row.paper, row.choice) == ("Idefics2", "siglip-encoder")]
    assert fmean(row.value_a for row in rows) == pytest.approx(57.4, abs=0.1)
    assert fmean(row.value_b for row in rows) == pytest.approx(60.6, abs=0.1)


def test_differences_are_in_points(tables):
    by_unit = {row.unit: row for row in tables.rows}
    for unit, factor in (("percent", 1), ("score", 1), ("cider", 1), ("mme", 1 / 20)):
        row = by_unit[unit]
        assert row.difference == pytest.approx((row.value_b - row.value_a) * factor)


# ── Malformed tables ─────────────────────────────────────────────────────────────────────────────────────────────────

BAD_CELLS = [
    ("value_a", "n/a", "'n/a'; expected a number from 0 to"),
    ("value_a", "", "nothing; expected a number from 0 to"),
    ("value_b", "nan", "'nan'; expected a number"),
    ("value_b", "inf", "'inf'; expected a number"),
    ("value_b", "-1", "'-1'; expected a number from 0 to"),
    ("value_b", "2001", "'2001'; expected a number from 0 to"),
    ("axis", "optimizer", "'optimizer'; expected one of encoder, connector"),
    ("axis", "connector", "; expected one of resampler"),
    ("choice", "siglip", "'siglip'; expected one of contrastive-encoder"),
    ("unit", "points", "'points'; expected one of percent, score, cider, mme"),
    ("phase", "training", "'training'; expected one of pretraining, instruction tuning"),
    ("status", "measured", "'measured'; expected one of reported"),
    ("arxiv", "2403.9611", "'2403.9611'; expected an arXiv id"),
    ("lm_billions", "0", "'0'; expected a number from 0.01 to 1000"),
    ("paper", "", "nothing; expected a value"),
    ("source", "", "nothing; expected a value"),
    ("setting_a", "  ", "nothing; expected a value"),
    ("fixed", "", "nothing; expected a value"),
    ("benchmark", "", "nothing; expected a value"),
]


@pytest.mark.parametrize(("column", "value", "message"), BAD_CELLS)
def test_a_bad_cell_is_refused_with_file_line_and_column(changed, column, value, message):
    with pytest.raises(CourseError) as error:
        read_rows(changed("mm1.csv", 3, column, value))
    named = "choice" if (column, value) == ("axis", "connector") else column
    assert str(error.value).startswith(f"mm1.csv, line 3, column {named}: ")
    assert message in str(error.value)


def test_percent_ends_at_100(changed):
    path = changed("prismatic.csv", 2, "value_a", "100.1")
    with pytest.raises(CourseError, match=r"line 2, column value_a: '100\.1'; expected a number from 0 to 100"):
        read_rows(path)
    read_rows(changed("prismatic.csv", 2, "value_a", "100"))


def test_equal_settings_are_refused(changed):
    path = changed("mm1.csv", 2, "setting_b", read_rows(FOLDER / "mm1.csv")[0].setting_a)
    with pytest.raises(CourseError, match=r"column setting_b: .* expected a setting other than setting_a"):
        read_rows(path)


def test_a_repeated_row_is_refused(changed):
    repeated = (FOLDER / "mm1.csv").read_text(encoding="utf-8").splitlines()[1]
    count = len(read_rows(FOLDER / "mm1.csv"))
    path = changed("mm1.csv", extra=repeated + "\n")
    with pytest.raises(CourseError, match=f"line {count + 2}, column benchmark: .* again, as in line 2"):
        read_rows(path)


def test_rows_of_two_papers_in_one_file_are_refused(changed):
    with pytest.raises(CourseError, match=r"line 4, column paper: 'Molmo' \(2403.09611\); expected 'MM1'"):
        read_rows(changed("mm1.csv", 4, "paper", "Molmo"))


def test_missing_and_surplus_cells_are_refused(changed):
    with pytest.raises(CourseError, match="line 22: 2 cells; expected 16"):
        read_rows(changed("mm1.csv", extra="MM1,2403.09611\n"))
    with pytest.raises(CourseError, match="line 22: 17 cells; expected 16"):
        read_rows(changed("mm1.csv", extra="," * 16 + "\n"))


def test_other_columns_are_refused(changed):
    with pytest.raises(CourseError, match=r"mm1\.csv, line 1: the columns .*'score'.*; expected"):
        read_rows(changed("mm1.csv", 1, "value_a", "score"))


def test_open_quotes_and_empty_files_are_refused(changed, tmp_path):
    with pytest.raises(CourseError, match=r"mm1\.csv, line 22: .* check the quotes"):
        read_rows(changed("mm1.csv", extra='"MM1,2403\n'))
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(CourseError, match="line 1: the columns"):
        read_rows(empty)
    empty.write_text((FOLDER / "mm1.csv").read_text(encoding="utf-8").splitlines()[0] + "\n")
    with pytest.raises(CourseError, match="has no rows"):
        read_rows(empty)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("favors", "c", "expected one of a, b, none"),
        ("p_value", "1.5", "expected a number from 0 to 1"),
        ("p_value", "<0.01", "expected a number from 0 to 1"),
        ("statement", "", "expected a value"),
        ("choice", "stronger-lm", "expected one of contrastive-encoder"),
    ],
)
def test_a_bad_statement_is_refused(changed, column, value, message):
    with pytest.raises(CourseError, match=rf"statements\.csv, line 2, column {column}: .*{message}"):
        read_statements(changed(STATEMENT_FILE, 2, column, value))


def test_a_repeated_statement_is_refused(changed):
    repeated = (FOLDER / STATEMENT_FILE).read_text(encoding="utf-8").splitlines()[1]
    with pytest.raises(CourseError, match="line 27: Prismatic, contrastive-encoder again, as in line 2"):
        read_statements(changed(STATEMENT_FILE, extra=repeated + "\n"))


@pytest.mark.parametrize("value", ["", "-0.5", "a point"])
def test_bad_noise_is_refused(changed, value):
    with pytest.raises(CourseError, match=r"noise\.csv, line 2, column points: .* expected a number from 0 to 100"):
        read_noise(changed(NOISE_FILE, 2, "points", value))


def test_statements_of_unknown_papers_are_refused(changed, tmp_path):
    for name in ("mm1.csv", NOISE_FILE, STATEMENT_FILE):
        changed(name)
    with pytest.raises(CourseError, match=r"a statement of Prismatic \(arXiv:2402\.07865\), which no table has"):
        load_tables(tmp_path)


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(CourseError, match="has no tables; run the course from a clone"):
        load_tables(tmp_path)


def test_the_example_of_the_readme_runs(capsys):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    exec(text.split("```python\n")[1].split("```")[0], {"__name__": "example"})
    assert capsys.readouterr().out.startswith("Cambrian-1 table 11 ")


def test_the_readme_counts_the_comparisons(tables):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for file in FOLDER.glob("*.csv"):
        assert f"| `{file.name}` |" in text
    for name, paper in (("mm1", "MM1"), ("idefics2", "Idefics2"), ("cambrian1", "Cambrian-1"), ("molmo", "Molmo")):
        rows = [row for row in tables.rows if row.paper == paper]
        count = len({(row.choice, row.setting_a, row.setting_b, row.fixed) for row in rows})
        line = next(line for line in text.splitlines() if f"`{name}.csv`" in line)
        assert f"| {count} |" in line
