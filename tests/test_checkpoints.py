"""The checkpoints in `data/checkpoints` are complete, small, and trained from the current parents."""

from shared.course.checkpoint import CHECKPOINTS_FOLDER, checkpoint_errors, checkpoints, is_stale
from shared.course.lesson import lesson_folder

MB = 1_000_000
FOLDERS = sorted(path for path in CHECKPOINTS_FOLDER.iterdir() if path.is_dir())


def test_no_checkpoint_is_missing_changed_or_outdated():
    names = {folder.name for folder in FOLDERS}
    # The checkpoint of a lesson that is not built yet may be missing.
    expected = [
        checkpoint
        for target, checkpoint in checkpoints().items()
        if not target.isdigit() or lesson_folder(int(target)) or checkpoint.name in names
    ]
    assert expected
    current = [checkpoint for checkpoint in expected if not is_stale(checkpoint.name)]
    assert checkpoint_errors(current) == [], "train them again: make checkpoints"
    for checkpoint in expected:
        if is_stale(checkpoint.name):
            assert checkpoint_errors([checkpoint]) != [], f"{checkpoint.name} is current: remove it from stale.toml"


def test_the_judge_is_independent_of_every_other_checkpoint():
    """Else a generator could inherit from the model that scores it, or the judge from generated images."""
    judge = checkpoints()["judge"]
    assert not judge.parents
    assert all(judge.name not in checkpoint.parents for checkpoint in checkpoints().values())


def test_every_checkpoint_can_be_trained_again():
    assert {folder.name for folder in FOLDERS} <= {checkpoint.name for checkpoint in checkpoints().values()}


def test_checkpoints_are_small():
    sizes = {folder.name: sum(path.stat().st_size for path in folder.iterdir()) for folder in FOLDERS}
    assert all(size <= 6 * MB for size in sizes.values()), sizes
    assert sum(sizes.values()) <= 80 * MB
