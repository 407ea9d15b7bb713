"""The shipped judge, loaded once."""

import pytest

from shared.judge import load_judge


@pytest.fixture(scope="session")
def judge():
    return load_judge()
