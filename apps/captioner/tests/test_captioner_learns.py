"""Sixteen pairs by heart, a run taken up where it stopped, and the command lines."""

import dataclasses
import sys

import pytest
import torch
from PIL import Image

from apps.captioner import arm, caption, evaluate, serve, train
from apps.captioner import data as captioner_data
from apps.captioner.config import PRESETS, SMALL
from apps.captioner.data import CaptionBatches, caption_tokenizer
from apps.captioner.measure import scores, share_true, written
from apps.captioner.model import Captioner, caption_loss
from apps.captioner.run_folder import load_captioner
from apps.captioner.toy import toy_pictures, write_folder
from shared.errors import CourseError
from shared.serving.served_model import GenerationRequest, Message, UnsupportedRequest
from shared.training import TrainingConfig
from shared.training import train as train_model
from shared.transformer import Sampling

# Small enough for a test, with chance in it: what is resumed must remember the random numbers too.
QUICK = dataclasses.replace(
    SMALL,
    eye=dataclasses.replace(SMALL.eye, image_size=16, width=16, depth=1, heads=2, mlp_dim=16, dropout=0.2),
    language=dataclasses.replace(SMALL.language, vocab_size=400, width=16, depth=1, heads=2, kv_heads=2, mlp_dim=16),
)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", QUICK)


@pytest.fixture
def toy(tmp_path):
    write_folder(tmp_path / "toy", pairs=8, size=16)
    return tmp_path / "toy"


def test_sixteen_pairs_are_learned_and_each_caption_goes_with_its_picture():
    pairs, scenes = toy_pictures("train", 0, 16, objects=(1, 1))
    tokenizer = caption_tokenizer(pairs.captions, SMALL.language.vocab)
    torch.manual_seed(0)
    model = Captioner(SMALL)
    train_model(
        model, CaptionBatches(pairs, tokenizer, batch_size=16, seed=0), caption_loss,
        TrainingConfig(steps=60, learning_rate=1e-2, optimizer="muon", warmup_steps=5, betas=(0.9, 0.95)),
    )  # fmt: skip
    said = written(model, tokenizer, pairs.pixels)
    assert share_true(said, scenes) == 1.0
    assert scores(said, pairs.captions)["CIDEr"] > 5
    assert len(set(said)) == len({captions[0] for captions in pairs.captions}) > 8
    # The captions follow the pictures: shown in another order, they come in that order.
    assert written(model, tokenizer, pairs.pixels.flip(0)) == said[::-1]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(quick, toy, tmp_path, monkeypatch):
    settings = {"steps": 8, "batch_size": 4}
    whole = train.train_on_folder(toy, tmp_path / "whole", **settings)
    batches = captioner_data.CaptionBatches.__call__

    def until_the_sixth(self, number):
        if number == 5:
            raise KeyboardInterrupt
        return batches(self, number)

    monkeypatch.setattr(captioner_data.CaptionBatches, "__call__", until_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        train.train_on_folder(toy, tmp_path / "cut", **settings)
    monkeypatch.setattr(captioner_data.CaptionBatches, "__call__", batches)
    resumed = train.train_on_folder(toy, tmp_path / "cut", **settings, resume=True)
    assert resumed.steps == whole.steps == 8
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_another_run_is_not_gone_on_with(quick, toy, tmp_path):
    train.train_on_folder(toy, tmp_path / "run", steps=2, batch_size=4)
    with pytest.raises(CourseError, match="seed was 0 and is 1"):
        train.train_on_folder(toy, tmp_path / "run", steps=2, batch_size=4, seed=1, resume=True)
    (toy / "captions.json").write_text((toy / "captions.json").read_text().replace("a ", "the "))
    with pytest.raises(CourseError, match="captions was"):
        train.train_on_folder(toy, tmp_path / "run", steps=2, batch_size=4, resume=True)
    with pytest.raises(CourseError, match="holds no captioner"):
        load_captioner(tmp_path)


def called(main, monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
    return main()


def test_the_command_lines(quick, toy, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    options = ("--run", run, "--steps", 4, "--batch-size", 4, "--held-out", 0.3)
    assert called(train.main, monkeypatch, toy, *options) == 0
    assert "weights, 4 steps" in capsys.readouterr().out
    assert called(train.main, monkeypatch, toy, *options, "--resume") == 0
    capsys.readouterr()
    picture = toy / "scene-00000.png"
    assert called(caption.main, monkeypatch, run, picture, picture, "--max-new-tokens", 6) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1] and lines[0].startswith(f"{picture}\t")
    assert (
        called(caption.main, monkeypatch, run, picture, "--temperature", 1.0, "--seed", 3, "--max-new-tokens", 6) == 0
    )
    capsys.readouterr()
    assert called(evaluate.main, monkeypatch, run, toy) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("BLEU-4", "CIDEr", "ROUGE-L", "mixed up", "expected"))


def test_a_service_says_what_the_command_line_says(quick, toy, tmp_path):
    train.train_on_folder(toy, tmp_path / "run", steps=2, batch_size=4)
    speaker = serve.ServedCaptioner(tmp_path / "run")
    files = [toy / f"scene-{number:05}.png" for number in range(3)]

    def asked(file, text=serve.PROMPT, **options) -> GenerationRequest:
        return GenerationRequest(
            (Message("user", text, (Image.open(file).convert("RGB"),)),), **({"max_new_tokens": 9} | options)
        )

    def spoken(requests) -> list[str]:
        rows = list(zip(*speaker.generate(requests), strict=True))
        assert all(
            sum(piece is not None for piece in row) <= request.max_new_tokens
            for row, request in zip(rows, requests, strict=True)
        )
        return ["".join(piece or "" for piece in row).strip() for row in rows]

    assert spoken([asked(file) for file in files]) == caption.caption_files(
        tmp_path / "run", files, sampling=Sampling(9)
    )
    by_chance = [asked(file, "", temperature=1.0, seed=5, max_new_tokens=4) for file in files]
    assert spoken(by_chance) == [spoken([each])[0] for each in by_chance]
    assert speaker.count_tokens(asked(files[0])) == 16 + 1 + 1  # patches, class token, begin
    for wrong in (asked(files[0], "what is the time?"), GenerationRequest((Message("user", serve.PROMPT),), 3)):
        with pytest.raises(UnsupportedRequest):
            speaker.count_tokens(wrong)


def test_mistakes_are_one_line(quick, toy, tmp_path, monkeypatch, capsys):
    (toy / "scene-00003.png").write_bytes(b"no picture")
    for main, arguments in (
        (train.main, (toy, "--run", tmp_path / "run")),
        (train.main, (tmp_path / "nowhere",)),
        (caption.main, (tmp_path, toy / "scene-00000.png")),
        (evaluate.main, (tmp_path, toy)),
    ):
        assert called(main, monkeypatch, *arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_scores_of_mixed_up_captions_are_lower(quick, toy, tmp_path, monkeypatch):
    """What evaluate.py sets beside the scores is the same captions at the wrong pictures."""
    train.train_on_folder(toy, tmp_path / "run", steps=2, batch_size=4, held_out=0.5)
    _, test = captioner_data.read_folder(toy, 16, held_out=0.5)
    monkeypatch.setattr(evaluate, "written", lambda *_: [said[0] for said in test.captions])
    own, mixed_up, shown = evaluate.evaluate(tmp_path / "run", toy)
    assert own["BLEU-1"] == pytest.approx(1.0) and mixed_up["CIDEr"] < own["CIDEr"]
    assert len(shown) == len(test.captions)


@pytest.mark.parametrize(("eye", "blind"), [("clip", False), ("new", True)])
def test_the_arm_measures(tmp_path, eye, blind):
    measured = arm.train_captioner(
        seed=0, data="toybox", device="cpu", folder=tmp_path, resume=False, steps=2, scenes=40, batch_size=8,
        held_out=6, eye=eye, blind=blind,
    )  # fmt: skip
    assert {"true_seen", "true_held_out", "BLEU-4_held_out", "CIDEr_held_out", "ROUGE-L_held_out"} <= measured.keys()
    assert len(set(measured["captions_held_out"])) == 1 or not blind
