"""Checkpoints that are damaged, cut short or foreign: refused by name, and the last intact one is used or suggested."""

import shutil

import pytest
import safetensors.torch
import torch
from torch import nn

from shared.errors import CourseError
from shared.training import Batches, RunOptions, TrainingConfig, load_weights, read_metrics, train
from shared.training.checkpoint import FILE_NAME, PREVIOUS_NAME, read_checkpoint
from shared.training.recovery import DAMAGED_NAME

INPUTS = torch.randn(32, 3, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1))


def run(folder=None, resume=False, **changes):
    settings = {"steps": 6, "learning_rate": 0.1, "checkpoint_every": 2, "log_every": 1, "ema_decay": 0.5} | changes
    batches = Batches(INPUTS, batch_size=8, seed=0)
    loss = lambda model, batch: model(batch).square().mean()  # noqa: E731
    return train(
        network(),
        batches,
        loss,
        TrainingConfig(**settings),
        run=RunOptions(folder=folder, resume=resume),
    )


def step_of(path) -> int:
    return read_checkpoint(path)[1]["step"]


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def partly_zeros(path):
    """As a file system may leave it after a power failure: full length, with zeros where nothing was written."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def one_bit_of_a_weight(path):
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def one_digit_of_the_step(path):
    """The step is in the header, which a checksum of the tensors would not cover."""
    content = path.read_bytes()
    assert content.count(b'\\"step\\": 6') == 1
    path.write_bytes(content.replace(b'\\"step\\": 6', b'\\"step\\": 5'))


def one_byte_of_the_header(path):
    content = bytearray(path.read_bytes())
    content[9] = 0xFF
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def zeros(path):
    path.write_bytes(bytes(len(path.read_bytes())))


def a_pickle(path):
    torch.save({"weight": torch.zeros(2)}, path)


def swapped_names(path):
    """Two weights of one shape are swapped: every byte of every tensor is unchanged."""
    content = path.read_bytes()
    first, second = b'"average.0.bias"', b'"average.2.bias"'
    assert first in content and second in content
    path.write_bytes(content.replace(first, b"\0").replace(second, first).replace(b"\0", second))


DAMAGES = (
    cut_short,
    partly_zeros,
    one_bit_of_a_weight,
    one_digit_of_the_step,
    one_byte_of_the_header,
    empty,
    zeros,
    a_pickle,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_continues_from_the_checkpoint_before_a_damaged_one(tmp_path, capsys, damage):
    uncut = run(tmp_path)
    damage(tmp_path / FILE_NAME)
    content = (tmp_path / FILE_NAME).read_bytes()
    capsys.readouterr()
    resumed = run(tmp_path, resume=True)
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert f"{tmp_path / FILE_NAME} is damaged" in warning
    assert "renamed to damaged-checkpoint.safetensors" in warning
    assert "continuing from previous-checkpoint.safetensors, step 4" in warning
    # The damaged file is kept; the two steps were taken again, and their lines were written again.
    assert (tmp_path / DAMAGED_NAME).read_bytes() == content
    for model, expected in ((resumed.model, uncut.model), (resumed.ema, uncut.ema)):
        assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.state_dict().items())
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in lines] == [line["loss"] for line in uncut.history]
    # The damaged file did not replace the intact one.
    assert (step_of(tmp_path / FILE_NAME), step_of(tmp_path / PREVIOUS_NAME)) == (6, 4)


def test_the_two_newest_are_kept(tmp_path):
    run(tmp_path, steps=2)
    assert step_of(tmp_path / FILE_NAME) == 2 and not (tmp_path / PREVIOUS_NAME).exists()
    run(tmp_path, steps=6)
    assert (step_of(tmp_path / FILE_NAME), step_of(tmp_path / PREVIOUS_NAME)) == (6, 4)


def test_a_run_killed_between_the_two_renames_continues(tmp_path, capsys):
    uncut = run(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    assert torch.equal(run(tmp_path, resume=True).model[0].weight, uncut.model[0].weight)
    assert "checkpoint.safetensors is missing; continuing from previous-checkpoint" in capsys.readouterr().err


def test_when_both_are_damaged_both_are_named_and_neither_is_changed(tmp_path):
    run(tmp_path)
    for name in (FILE_NAME, PREVIOUS_NAME):
        cut_short(tmp_path / name)
    with pytest.raises(CourseError) as caught:
        run(tmp_path, resume=True)
    message = str(caught.value)
    assert f"{tmp_path / FILE_NAME} is damaged" in message and f"{tmp_path / PREVIOUS_NAME} is damaged" in message
    advice = f"remove the folder {tmp_path}, and the same command with RESUME=1 trains only what was in it again"
    assert message.endswith(advice) and "\n" not in message
    assert (tmp_path / FILE_NAME).exists() and (tmp_path / PREVIOUS_NAME).exists()
    shutil.rmtree(tmp_path)
    assert run(tmp_path, resume=True).steps == 6  # which works


def test_a_single_damaged_checkpoint_suggests_to_start_again(tmp_path):
    run(tmp_path, steps=2)
    cut_short(tmp_path / FILE_NAME)
    with pytest.raises(CourseError, match=r"damaged.*no intact checkpoint is left: remove the folder .*with RESUME=1"):
        run(tmp_path, steps=2, resume=True)


def test_a_foreign_file_is_refused_and_not_changed(tmp_path):
    run(tmp_path)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / FILE_NAME)
    with pytest.raises(CourseError, match=r"not written by the training loop.*continues from previous-checkpoint"):
        run(tmp_path, resume=True)
    (tmp_path / FILE_NAME).rename(tmp_path / "foreign.safetensors")
    assert run(tmp_path, resume=True).steps == 6  # as the message suggests
    (tmp_path / PREVIOUS_NAME).unlink()
    shutil.copy(tmp_path / "foreign.safetensors", tmp_path / FILE_NAME)
    with pytest.raises(CourseError, match="move it elsewhere, and RESUME=1 starts from the beginning"):
        run(tmp_path, resume=True)


def test_another_runs_checkpoint_is_refused_without_fallback(tmp_path):
    run(tmp_path)
    with pytest.raises(CourseError, match=r"other settings \(learning_rate: 0\.1 there, 0\.2 here\)"):
        run(tmp_path, resume=True, learning_rate=0.2)
    assert step_of(tmp_path / FILE_NAME) == 6 and not (tmp_path / DAMAGED_NAME).exists()


def test_a_folder_with_the_files_name_is_not_called_damaged(tmp_path):
    run(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(CourseError, match="cannot read"):
        run(tmp_path, resume=True)
    assert (tmp_path / FILE_NAME).is_dir()


@pytest.mark.parametrize("damage", [*DAMAGES, swapped_names])
def test_weights_are_never_read_from_an_older_file_instead(tmp_path, damage):
    run(tmp_path)
    damage(tmp_path / FILE_NAME)
    with pytest.raises(CourseError, match=r"damaged.*previous-checkpoint\.safetensors, is intact.*\(step 4\)"):
        load_weights(network(), tmp_path)
    load_weights(network(), tmp_path / PREVIOUS_NAME)
    (tmp_path / PREVIOUS_NAME).unlink()
    with pytest.raises(CourseError, match="no intact checkpoint lies beside it, so train again"):
        load_weights(network(), tmp_path)


def test_partial_files_of_a_killed_process_are_removed(tmp_path):
    run(tmp_path)
    for resume in (True, False):
        (tmp_path / f"{FILE_NAME}.4711.part").write_bytes(b"half")
        run(tmp_path, resume=resume)
        assert not list(tmp_path.glob("*.part"))


def test_a_new_run_removes_all_older_checkpoints(tmp_path):
    run(tmp_path)
    cut_short(tmp_path / FILE_NAME)
    run(tmp_path, resume=True)
    run(tmp_path, steps=1)
    assert not (tmp_path / PREVIOUS_NAME).exists() and not (tmp_path / DAMAGED_NAME).exists()
