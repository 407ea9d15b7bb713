"""Command lines: one line per error, and an exit status for every outcome."""

import subprocess
import sys

import pytest

from shared.cli import ERROR, INTERRUPTED, NO_READER, command_line, parse_whole_number
from shared.course.lesson import ROOT
from shared.errors import CourseError


def run(outcome: object, *options: str) -> int:
    """Run a command that returns `outcome`, or raises it."""

    @command_line(*options)
    def main(value: object) -> object:
        if isinstance(value, BaseException):
            raise value
        return value

    return main(outcome)


@pytest.mark.parametrize(("outcome", "status"), [(None, 0), (0, 0), (1, 1)])
def test_a_command_returns_its_own_status(outcome, status, capsys):
    assert run(outcome) == status
    assert capsys.readouterr() == ("", "")


def test_an_error_for_the_user_is_one_line(capsys):
    assert run(CourseError("no such file: a.png")) == ERROR == 2
    assert capsys.readouterr() == ("", "error: no such file: a.png\n")


def test_ctrl_c_has_its_own_status_and_message(capsys):
    assert run(KeyboardInterrupt()) == INTERRUPTED == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert run(KeyboardInterrupt(), "stopped; run it again to continue") == INTERRUPTED
    assert capsys.readouterr().err == "stopped; run it again to continue\n"


def test_bugs_and_argparse_exits_pass_through():
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError())
    with pytest.raises(SystemExit):
        run(SystemExit(2))


def test_whole_numbers_are_parsed():
    assert parse_whole_number("lesson", "12") == 12
    with pytest.raises(CourseError, match="lesson 'one' is not a whole number"):
        parse_whole_number("lesson", "one")


@pytest.mark.parametrize("text", ["", " ", "1.5", "²", "1_000", "0x10", "--1", "9" * 5000])
def test_what_is_not_a_whole_number_is_named(text):
    with pytest.raises(
        CourseError, match=r"^seed (is empty; give a whole number|.* is not a whole number|.*too large)$"
    ):
        parse_whole_number("seed", text)


def test_a_number_beyond_its_limits_is_named():
    assert parse_whole_number("port", "65535", least=0, most=65535) == 65535
    with pytest.raises(CourseError, match=r"port '65536' is too large; the greatest is 65535"):
        parse_whole_number("port", "65536", least=0, most=65535)
    with pytest.raises(CourseError, match=r"port '-1' is too small; the least is 0"):
        parse_whole_number("port", "-1", least=0, most=65535)


LINES = """
from shared.cli import command_line
@command_line()
def main():
    for number in range(100_000):
        print(number, {flush})
import sys
sys.exit(main())
"""


@pytest.mark.parametrize("flush", ["flush=False", "flush=True"])
def test_output_without_a_reader_ends_the_command_silently(flush):
    """As in `make runs | head`."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", LINES.format(flush=flush)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (NO_READER, b"")


def test_another_broken_pipe_is_a_bug():
    with pytest.raises(BrokenPipeError):
        run(BrokenPipeError())
