import errno
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from shared.errors import CourseError
from shared.training import Batches, RunOptions, TrainingConfig, TrainingInterrupted, load_weights, train
from shared.training.checkpoint import FILE_NAME, PREVIOUS_NAME, read_checkpoint

INPUTS = torch.randn(32, 3, generator=torch.Generator().manual_seed(1))


def network(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 1))


def loss(model, batch):
    return model(batch).square().mean()


def run(folder, model=None, resume=False, **changes):
    settings = {"steps": 6, "learning_rate": 0.1, "checkpoint_every": 2} | changes
    batches = Batches(INPUTS, batch_size=8, seed=0)
    return train(
        model or network(),
        batches,
        loss,
        TrainingConfig(**settings),
        run=RunOptions(folder=folder, resume=resume),
    )


def test_safetensors_opens_a_checkpoint(tmp_path):
    result = run(tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / FILE_NAME)
    assert torch.equal(tensors["model.0.weight"], result.model[0].weight)
    assert torch.equal(tensors["model.1.running_mean"], result.model[1].running_mean)
    assert {"optimizer.0.weight.exp_avg", "optimizer.0.weight.step", "random.cpu"} <= tensors.keys()


def test_tied_weights_are_saved_once_and_restored_tied(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    result = run(tmp_path, tied())
    assert "model.1.weight" not in safetensors.torch.load_file(tmp_path / FILE_NAME)
    loaded = load_weights(tied(), tmp_path)
    assert torch.equal(loaded[1].weight, result.model[0].weight) and loaded[1].weight is loaded[0].weight


def test_buffers_that_share_memory_are_saved(tmp_path):
    model = network()
    model.register_buffer("full", torch.arange(6.0))
    model.register_buffer("part", model.full[2:4])
    run(tmp_path, model)
    assert read_checkpoint(tmp_path / FILE_NAME)[0]["model.part"].tolist() == [2.0, 3.0]


def test_the_error_for_another_model_lists_what_does_not_fit(tmp_path):
    run(tmp_path)
    with pytest.raises(CourseError) as caught:
        load_weights(
            nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(4, affine=False), nn.Identity(), nn.Linear(4, 1)), tmp_path
        )
    message = str(caught.value)
    assert "2 missing: 3.bias, 3.weight" in message
    assert "4 surplus: 1.bias, 1.weight, 2.bias, 2.weight" in message
    assert "2 of another shape: 0.weight: (4, 3) torch.float32 where the model has (5, 3)" in message


def test_a_mismatch_changes_no_weight(tmp_path):
    run(tmp_path)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(9, 9))
    before = model[0].weight.detach().clone()
    with pytest.raises(CourseError):
        load_weights(model, tmp_path)
    assert torch.equal(model[0].weight, before)


def test_continuing_with_other_settings_names_them(tmp_path):
    run(tmp_path)
    with pytest.raises(CourseError, match=r"learning_rate: 0\.1 there, 0\.2 here; steps: 6 there, 9 here"):
        run(tmp_path, resume=True, steps=9, learning_rate=0.2)
    run(tmp_path, resume=True, log_every=3, checkpoint_every=1)  # these change no weight


def test_an_average_that_does_not_exist_cannot_be_loaded(tmp_path):
    run(tmp_path)
    with pytest.raises(CourseError, match="without ema_decay"):
        load_weights(network(), tmp_path, average=True)


def test_a_foreign_safetensors_file_is_recognized(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / FILE_NAME)
    with pytest.raises(CourseError, match="not written by the training loop"):
        load_weights(network(), tmp_path)
    with pytest.raises(CourseError, match="no checkpoint at"):
        load_weights(network(), tmp_path / "nowhere.safetensors")


class FullDisk:
    """A file that accepts a few bytes and then fails, as on a full disk."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_last_checkpoint_intact(tmp_path, monkeypatch):
    uncut = run(None)
    path_open, opened = Path.open, []

    def open_on_full_disk(path, mode="r", *arguments, **options):
        file = path_open(path, mode, *arguments, **options)
        if FILE_NAME in str(path) and mode == "wb":
            opened.append(path)
            if len(opened) == 3:
                return FullDisk(file)
        return file

    monkeypatch.setattr(Path, "open", open_on_full_disk)
    with pytest.raises(CourseError, match=r"cannot write .*checkpoint\.safetensors: No space left.*RESUME=1") as caught:
        run(tmp_path)
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert read_checkpoint(tmp_path / FILE_NAME)[1]["step"] == 4
    assert not list(tmp_path.glob("*.part"))
    resumed = run(tmp_path, resume=True)
    assert torch.equal(resumed.model[0].weight, uncut.model[0].weight)


def test_a_full_disk_while_the_log_is_written_is_reported(tmp_path, monkeypatch):
    from shared.training.metrics import MetricsLog

    def refuse(self, step, values):
        from shared.atomic import disk_errors

        with disk_errors(self.path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MetricsLog, "write", refuse)
    with pytest.raises(CourseError, match=r"metrics\.jsonl: No space left"):
        run(tmp_path, log_every=1)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CourseError, match="cannot write"):
        run(tmp_path / "file" / "folder")


def test_the_header_is_json(tmp_path):
    run(tmp_path, ema_decay=0.9)
    with safetensors.safe_open(tmp_path / FILE_NAME, framework="pt") as file:
        header = json.loads(file.metadata()["training"])
    assert header["step"] == 6 and header["settings"]["learning_rate"] == 0.1
    assert {file.name for file in tmp_path.iterdir()} == {FILE_NAME, PREVIOUS_NAME, "metrics.jsonl", "tensorboard"}


def test_the_checkpoint_of_an_interrupted_run_holds_its_step_and_sums(tmp_path):
    def cut(model, batch):
        import signal

        signal.raise_signal(signal.SIGTERM)
        return loss(model, batch)

    with pytest.raises(TrainingInterrupted):
        train(
            network(),
            Batches(INPUTS, batch_size=8, seed=0),
            cut,
            TrainingConfig(6, 0.1),
            run=RunOptions(folder=tmp_path),
        )
    header = read_checkpoint(tmp_path / FILE_NAME)[1]
    assert header["step"] == 1 and header["sums"]["loss/count"] == 1
