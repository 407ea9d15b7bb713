"""What is kept in `data/checkpoints`: whole, small, and made from what is there now."""

from shared.course.checkpoint import CHECKPOINTS_FOLDER, checkpoint_errors, checkpoints
from shared.course.lesson import lesson_folder

MB = 1_000_000
KEPT = sorted(path for path in CHECKPOINTS_FOLDER.iterdir() if path.is_dir())


def test_no_checkpoint_is_missing_changed_or_stale():
    kept = {folder.name for folder in KEPT}
    # Of a lesson that is not ready yet, it need not be there.
    expected = [one for number, one in checkpoints().items() if lesson_folder(number) or one.name in kept]
    assert expected
    assert checkpoint_errors(expected) == [], "make them again: make checkpoints"


def test_nothing_is_kept_that_no_lesson_makes():
    assert {folder.name for folder in KEPT} <= {checkpoint.name for checkpoint in checkpoints().values()}


def test_checkpoints_are_small():
    sizes = {folder.name: sum(path.stat().st_size for path in folder.iterdir()) for folder in KEPT}
    assert all(size <= 6 * MB for size in sizes.values()), sizes
    assert sum(sizes.values()) <= 80 * MB
