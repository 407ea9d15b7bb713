"""Command lines: one line per error, and an exit status for every outcome."""

import pytest

from shared.cli import ERROR, INTERRUPTED, command_line, parse_whole_number
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
