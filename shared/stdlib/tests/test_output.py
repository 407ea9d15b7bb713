"""Every character of the course can be printed on a terminal of any encoding."""

import subprocess
import sys

import pytest

from shared.course.lesson import ROOT

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
