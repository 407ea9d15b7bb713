"""Programs can print to a terminal of any encoding, and to a pipe whose reader ends."""

import subprocess
import sys

import pytest

from shared.course.lesson import ROOT
from shared.stdlib.output import INTERRUPTED, NO_READER, run_program

PROGRAM = "from shared.stdlib.output import print_to_any_terminal as f; f(); print({text!r}); f(); print('ok')"


@pytest.mark.parametrize(
    ("encoding", "text", "printed"),
    [
        ("ascii", "mean ≥ 0.5 ± 0.1 → “on”", 'mean >= 0.5 +/- 0.1 -> "on"'),
        ("ascii", "▁▃█ 日本 é", "_-# ?? ?"),
        ("latin-1", "0.5 ± 0.1 ≥ é", "0.5 ± 0.1 >= é"),
        ("utf-8", "▁ ≥ é", "▁ ≥ é"),
        ("utf-8", "\ud800", "?"),
    ],
)
def test_what_the_encoding_lacks_is_replaced_by_similar_characters(encoding, text, printed):
    command = [sys.executable, "-S", "-c", PROGRAM.format(text=text)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env={"PYTHONIOENCODING": encoding})
    assert done.stdout.decode(encoding) == f"{printed}\nok\n", done.stderr


LINES = """
from shared.stdlib.output import run_program
def main():
    for number in range(100_000):
        print(number, {flush})
run_program(main)
"""


@pytest.mark.parametrize("flush", ["flush=False", "flush=True"])
def test_a_program_without_a_reader_ends_silently(flush):
    """As in `make reference-1 | head`."""
    command = [sys.executable, "-S", "-c", LINES.format(flush=flush)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (NO_READER, b"")


def test_a_program_keeps_its_own_exit_status(capsys):
    run_program(lambda: print("done"))
    assert capsys.readouterr().out == "done\n"
    for outcome, status in ((SystemExit(2), 2), (KeyboardInterrupt(), INTERRUPTED)):
        with pytest.raises(SystemExit) as caught:
            run_program(raising(outcome))
        assert caught.value.code == status
    with pytest.raises(ZeroDivisionError):
        run_program(raising(ZeroDivisionError()))


def raising(error):
    def main():
        raise error

    return main
