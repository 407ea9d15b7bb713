"""Read the published ablation tables: one CSV row per comparison and benchmark, every number as its paper reports it.

    tables = load_tables()
    tables.rows[0].difference          value of setting b minus value of setting a, in points

A malformed file is refused with its name, the line, the column, what was given and what was expected.
Standard library only.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from lessons.lesson_07_recipes.recipes.choices import AXES, CHOICES
from shared.errors import CourseError
from shared.text_files import read_text

FOLDER = Path(__file__).parents[1] / "tables"
NOISE_FILE, STATEMENT_FILE = "noise.csv", "statements.csv"
STATUS = "reported"
PHASES = ("pretraining", "instruction tuning")
UNITS = {"percent": 100.0, "score": 200.0, "cider": 300.0, "mme": 2000.0}
"""Units and their greatest value; the least is 0. A `score` is a paper's average over benchmarks, CIDEr among them."""
POINTS = {"percent": 1.0, "score": 1.0, "cider": 1.0, "mme": 1 / 20}
"""Points per unit. MME perception counts 1/20, as Cambrian-1 averages it (arXiv:2406.16860, section 2.4)."""


@dataclass(frozen=True)
class AblationRow:
    """Two settings of one choice, scored on one benchmark in one table of a paper.

    source              table, figure or section of the paper
    axis, choice        what is decided (see choices.py)
    setting_a, value_a  baseline and its score, in `unit`
    setting_b, value_b  alternative and its score
    fixed               what both settings share
    lm_billions         parameters of the language model, in billions
    """

    paper: str
    arxiv: str
    source: str
    axis: str
    choice: str
    setting_a: str
    setting_b: str
    fixed: str
    lm_billions: float
    phase: str
    benchmark: str
    unit: str
    value_a: float
    value_b: float
    status: str
    note: str = ""

    @property
    def difference(self) -> float:
        """Score of setting b minus score of setting a, in points."""
        return (self.value_b - self.value_a) * POINTS[self.unit]


@dataclass(frozen=True)
class Statement:
    """A conclusion that a paper states: the setting it favors ("a", "b" or "none"), and its p-value if it has one."""

    paper: str
    arxiv: str
    source: str
    axis: str
    choice: str
    favors: str
    p_value: float | None
    statement: str
    status: str


@dataclass(frozen=True)
class Noise:
    """The difference between repeated runs that a paper states, in points of its average score."""

    paper: str
    arxiv: str
    source: str
    points: float
    statement: str
    status: str


@dataclass(frozen=True)
class Tables:
    """All published numbers that the recipe picker uses."""

    rows: tuple[AblationRow, ...]
    statements: tuple[Statement, ...]
    noise: tuple[Noise, ...]


@dataclass(frozen=True)
class _Cell:
    """One cell of a table, which knows its place."""

    file: Path
    line: int
    column: str
    text: str

    def refuse(self, expected: str) -> CourseError:
        text = repr(self.text) if self.text else "nothing"
        return CourseError(f"{self.file.name}, line {self.line}, column {self.column}: {text}; expected {expected}")

    def filled(self) -> str:
        if not self.text:
            raise self.refuse("a value")
        return self.text

    def one_of(self, options: Iterable[str]) -> str:
        options = tuple(options)
        if self.text not in options:
            raise self.refuse("one of " + ", ".join(options))
        return self.text

    def arxiv_id(self) -> str:
        if not re.fullmatch(r"\d{4}\.\d{5}", self.text):
            raise self.refuse("an arXiv id such as 2403.09611")
        return self.text

    def number(self, least: float, most: float) -> float:
        expected = f"a number from {least:g} to {most:g}"
        try:
            value = float(self.text)
        except ValueError:
            raise self.refuse(expected) from None
        if not math.isfinite(value) or not least <= value <= most:
            raise self.refuse(expected)
        return value


Record = TypeVar("Record")


def _read(file: Path, record: type[Record], convert: Callable[[dict[str, _Cell]], Record]) -> list[tuple[int, Record]]:
    """Return the records of a file with their lines. Raises CourseError at the first cell that does not fit."""
    columns = [field.name for field in fields(record)]  # type: ignore[arg-type]
    reader = csv.reader(io.StringIO(read_text(file)), strict=True)
    records: list[tuple[int, Record]] = []
    try:
        header = next(reader, [])
        if header != columns:
            raise CourseError(f"{file.name}, line 1: the columns {header}; expected {columns}")
        for values in reader:
            line = reader.line_num
            if len(values) != len(columns):
                raise CourseError(f"{file.name}, line {line}: {len(values)} cells; expected {len(columns)}: {columns}")
            cells = {name: _Cell(file, line, name, value.strip()) for name, value in zip(columns, values, strict=True)}
            records.append((line, convert(cells)))
    except csv.Error as error:
        raise CourseError(f"{file.name}, line {reader.line_num}: {error}; check the quotes") from error
    if not records:
        raise CourseError(f"{file.name} has no rows; expected at least one below the header")
    return records


def _decision(cells: dict[str, _Cell]) -> dict[str, str]:
    """Return the cells that every record of a choice has, checked."""
    axis = cells["axis"].one_of(AXES)
    choice = cells["choice"].one_of(name for name, choice in CHOICES.items() if choice.axis == axis)
    paper, source = cells["paper"].filled(), cells["source"].filled()
    status = cells["status"].one_of((STATUS,))
    arxiv = cells["arxiv"].arxiv_id()
    return {"paper": paper, "arxiv": arxiv, "source": source, "axis": axis, "choice": choice, "status": status}


def _ablation_row(cells: dict[str, _Cell]) -> AblationRow:
    unit = cells["unit"].one_of(UNITS)
    if cells["setting_a"].filled() == cells["setting_b"].filled():
        raise cells["setting_b"].refuse("a setting other than setting_a")
    return AblationRow(
        **_decision(cells),
        setting_a=cells["setting_a"].text,
        setting_b=cells["setting_b"].text,
        fixed=cells["fixed"].filled(),
        lm_billions=cells["lm_billions"].number(0.01, 1000),
        phase=cells["phase"].one_of(PHASES),
        benchmark=cells["benchmark"].filled(),
        unit=unit,
        value_a=cells["value_a"].number(0, UNITS[unit]),
        value_b=cells["value_b"].number(0, UNITS[unit]),
        note=cells["note"].text,
    )


def read_rows(file: Path) -> list[AblationRow]:
    """Return the rows of one paper's table, in order.

    Raises CourseError for a cell that is missing or out of range, an unknown axis, choice, unit or phase, a second row
    for the same comparison and benchmark, and a file with rows of several papers.
    """
    lines: dict[tuple[str, ...], int] = {}
    rows: list[AblationRow] = []
    for line, row in _read(file, AblationRow, _ablation_row):
        key = (row.choice, row.setting_a, row.setting_b, row.fixed, row.benchmark)
        if key in lines:
            raise CourseError(
                f"{file.name}, line {line}, column benchmark: {row.benchmark!r} again, as in line {lines[key]}; "
                "expected one row per comparison and benchmark"
            )
        if rows and (row.paper, row.arxiv) != (rows[0].paper, rows[0].arxiv):
            raise CourseError(
                f"{file.name}, line {line}, column paper: {row.paper!r} ({row.arxiv}); "
                f"expected {rows[0].paper!r} ({rows[0].arxiv}) as in the rows above"
            )
        lines[key] = line
        rows.append(row)
    return rows


def read_statements(file: Path) -> list[Statement]:
    """Return the conclusions that papers state. Raises CourseError as `read_rows` does."""

    def convert(cells: dict[str, _Cell]) -> Statement:
        p_value = cells["p_value"].number(0, 1) if cells["p_value"].text else None
        favors, statement = cells["favors"].one_of(("a", "b", "none")), cells["statement"].filled()
        return Statement(**_decision(cells), favors=favors, p_value=p_value, statement=statement)

    return _unique(file, _read(file, Statement, convert), lambda each: (each.paper, each.choice))


def read_noise(file: Path) -> list[Noise]:
    """Return the noise that papers state. Raises CourseError as `read_rows` does."""

    def convert(cells: dict[str, _Cell]) -> Noise:
        names = ("paper", "source", "statement")
        texts = {name: cells[name].filled() for name in names}
        status, points = cells["status"].one_of((STATUS,)), cells["points"].number(0, 100)
        return Noise(**texts, arxiv=cells["arxiv"].arxiv_id(), points=points, status=status)

    return _unique(file, _read(file, Noise, convert), lambda each: (each.paper,))


def _unique(
    file: Path, records: Sequence[tuple[int, Record]], key: Callable[[Record], tuple[str, ...]]
) -> list[Record]:
    lines: dict[tuple[str, ...], int] = {}
    for line, record in records:
        if key(record) in lines:
            name = ", ".join(key(record))
            raise CourseError(f"{file.name}, line {line}: {name} again, as in line {lines[key(record)]}; expected once")
        lines[key(record)] = line
    return [record for _, record in records]


def load_tables(folder: Path = FOLDER) -> Tables:
    """Return all published numbers of a folder. Raises CourseError for a malformed file, and when there are none."""
    files = sorted(file for file in Path(folder).glob("*.csv") if file.name not in (NOISE_FILE, STATEMENT_FILE))
    if not files:
        raise CourseError(f"{folder} has no tables; run the course from a clone of its repository")
    rows = tuple(row for file in files for row in read_rows(file))
    papers = {row.paper: row.arxiv for row in rows}
    statements, noise = read_statements(Path(folder) / STATEMENT_FILE), read_noise(Path(folder) / NOISE_FILE)
    records: list[Statement | Noise] = [*statements, *noise]
    for record in records:
        if papers.get(record.paper) != record.arxiv:
            raise CourseError(
                f"{folder}: a statement of {record.paper} (arXiv:{record.arxiv}), which no table has; "
                f"expected one of {', '.join(sorted(papers))}"
            )
    return Tables(rows, tuple(statements), tuple(noise))
