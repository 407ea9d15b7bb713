"""How one exercise did in its tests."""

from dataclasses import dataclass


@dataclass
class ExerciseResult:
    """The tests of one exercise: how many there are, how many passed, and the first that failed."""

    passed: int = 0
    tests: int = 0
    failed_test: str = ""
    """The name of the first test that failed; "" when none failed or none ran."""
    message: str = ""
    """Why that test failed, or why none ran."""
    seconds: float = 0.0
    """CPU time of the student's process; 0 where the code ran in the tests' own process."""
    memory_mb: int = 0
    """Peak memory of the student's process."""

    @property
    def solved(self) -> bool:
        """True for an exercise that has tests and passes all of them."""
        return 0 < self.tests == self.passed
