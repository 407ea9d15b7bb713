"""The shipped judge, loaded once."""

import pytest

from shared.course.checkpoint import is_stale
from shared.judge import load_judge
from shared.judge.pretrained import NAME


@pytest.fixture(scope="session")
def judge():
    if is_stale(NAME):
        pytest.skip("the judge is not trained yet: make checkpoint-judge")
    return load_judge()
