from benchmarks.report import COLUMNS, Row, markdown_table
from benchmarks.timing import time_in_turns


def test_a_ratio_above_one_favors_the_course():
    assert Row.of_cost("time", 2.0, 4.0, "ms").ratio == 2.0
    assert Row.of_rate("speed", 2.0, 4.0, "per s").ratio == 0.5
    assert Row.of_rate("speed", 2.0, None, "per s").cells() == ("speed", "2", "–", "per s", "–")


def test_a_table_has_one_line_per_row():
    row = Row.of_cost("time", 1234.5, 2469.0, "ms")
    header, rule, line = markdown_table(COLUMNS, [row.cells()]).splitlines()
    assert header.startswith("| measurement | course | baseline |") and rule == "|---|---|---|---|---|"
    assert line == "| time | 1,234 | 2,469 | ms | 2.00 |"


def test_functions_are_timed_in_turns():
    calls, now = [], [0.0]

    def call(name: str, seconds: float):
        calls.append(name)
        now[0] += seconds
        return name.upper()

    functions = {"a": lambda: call("a", 1.0), "b": lambda: call("b", 3.0)}
    timings = time_in_turns(functions, 2, warmup=1, clock=lambda: now[0])
    assert calls == ["a", "b"] * 3
    assert timings["a"].seconds == [1.0, 1.0] and timings["b"].median_ms == 3000 and timings["b"].best == 3.0
    assert timings["a"].result == "A"
