"""Load the judge that the course ships."""

from shared.course.checkpoint import checkpoint_folder
from shared.judge.model import Judge

NAME = "judge"
"""The judge's folder in `data/checkpoints`."""


def load_judge() -> Judge:
    """Load the shipped judge, frozen and in evaluation mode. Raises CourseError when its checkpoint is missing."""
    return Judge.from_pretrained(checkpoint_folder(NAME)).requires_grad_(False)
