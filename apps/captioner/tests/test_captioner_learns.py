"""The captioner memorizes sixteen images, a stopped run resumes exactly, and the command line reports what it does."""

import dataclasses
from pathlib import Path
from statistics import fmean

import pytest
import torch
from PIL import Image

from apps.captioner import __main__ as command_line
from apps.captioner import data as captioner_data
from apps.captioner import evaluate
from apps.captioner.captions import caption_files, generate_captions, score_captions_of
from apps.captioner.config import PRESETS, SMALL
from apps.captioner.data import CaptionBatches, train_tokenizer
from apps.captioner.evaluate import evaluate_on_folder, evaluate_on_toy_world, recorded_results
from apps.captioner.model import Captioner, caption_loss
from apps.captioner.run_folder import load_captioner
from apps.captioner.served_captioner import PROMPT, ServedCaptioner
from apps.captioner.toy_world import fraction_true, toy_images, write_folder
from apps.captioner.train import FolderRecipe, ToyWorldRecipe, train_on_folder, train_on_toy_world
from shared.course.claims import half_width
from shared.errors import CourseError
from shared.serving import GenerationRequest, Message, UnsupportedRequest
from shared.training import RunOptions, TrainingConfig, train
from shared.transformer import Sampling

# Small enough for a test, with dropout: a resumed run must restore the state of the random numbers too.
QUICK = dataclasses.replace(
    SMALL,
    vision=dataclasses.replace(SMALL.vision, image_size=16, width=16, depth=1, heads=2, mlp_dim=16, dropout=0.2),
    language=dataclasses.replace(SMALL.language, vocab_size=400, width=16, depth=1, heads=2, kv_heads=2, mlp_dim=16),
)
RESUME = RunOptions(resume=True)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", QUICK)


@pytest.fixture
def images(tmp_path):
    write_folder(tmp_path / "toy", count=8, size=16)
    return tmp_path / "toy"


def test_sixteen_images_are_memorized_each_with_its_caption():
    training, scenes = toy_images("train", 0, 16, objects=(1, 1))
    tokenizer = train_tokenizer(training.captions, SMALL.language.vocab_size)
    torch.manual_seed(0)
    model = Captioner(SMALL)
    train(
        model,
        CaptionBatches(training, tokenizer, batch_size=16, seed=0),
        caption_loss,
        TrainingConfig(steps=60, learning_rate=1e-2, optimizer="muon", warmup_steps=5, betas=(0.9, 0.95)),
    )
    captions = generate_captions(model, tokenizer, training.pixels)
    assert fraction_true(captions, scenes) == 1.0
    assert score_captions_of(captions, training)["CIDEr"] > 5
    assert len(set(captions)) == len({each[0] for each in training.captions}) > 8
    # The captions follow the images: in another order of images they are in that order.
    assert generate_captions(model, tokenizer, training.pixels.flip(0)) == captions[::-1]


def test_a_stopped_run_resumes_to_the_same_weights(quick, images, tmp_path, monkeypatch):
    recipe = FolderRecipe(steps=8, batch_size=4)
    uninterrupted = train_on_folder(images, tmp_path / "uninterrupted", recipe)
    call = captioner_data.CaptionBatches.__call__

    def stop_at_five(self, number):
        if number == 5:
            raise KeyboardInterrupt
        return call(self, number)

    monkeypatch.setattr(captioner_data.CaptionBatches, "__call__", stop_at_five)
    with pytest.raises(KeyboardInterrupt):
        train_on_folder(images, tmp_path / "cut", recipe)
    monkeypatch.setattr(captioner_data.CaptionBatches, "__call__", call)
    resumed = train_on_folder(images, tmp_path / "cut", recipe, run=RESUME)
    assert resumed.steps == uninterrupted.steps == 8
    for one, other in zip(uninterrupted.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_another_run_cannot_be_resumed(quick, images, tmp_path):
    recipe = FolderRecipe(steps=2, batch_size=4)
    train_on_folder(images, tmp_path / "run", recipe)
    with pytest.raises(CourseError, match="seed was 0 and is 1"):
        train_on_folder(images, tmp_path / "run", recipe, seed=1, run=RESUME)
    (images / "captions.json").write_text((images / "captions.json").read_text().replace("a ", "the "))
    with pytest.raises(CourseError, match="captions was"):
        train_on_folder(images, tmp_path / "run", recipe, run=RESUME)
    with pytest.raises(CourseError, match="holds no captioner"):
        load_captioner(tmp_path)


def test_changed_images_are_no_longer_the_run_that_was_trained(quick, images, tmp_path):
    recipe = FolderRecipe(steps=2, batch_size=4, held_out=0.3)
    train_on_folder(images, tmp_path / "run", recipe)
    evaluate_on_folder(tmp_path / "run", images)
    for file in images.glob("*.png"):
        Image.new("RGB", (16, 16), "red").save(file)
    with pytest.raises(CourseError, match="pixels was"):
        train_on_folder(images, tmp_path / "run", recipe, run=RESUME)
    with pytest.raises(CourseError, match="is not the folder of the training, or has changed since"):
        evaluate_on_folder(tmp_path / "run", images)


def call(*arguments) -> int:
    return command_line.main([*map(str, arguments)])


def test_the_command_line(quick, images, tmp_path, capsys):
    run = tmp_path / "run"
    options = ("--run", run, "--steps", 4, "--batch-size", 4, "--held-out", 0.3)
    assert call("train", images, *options) == 0
    out = capsys.readouterr().out
    assert "weights, 4 steps" in out and "held out: BLEU-1" in out
    assert call("train", images, "--run", tmp_path / "all", "--steps", 1, "--held-out", 0) == 0
    assert "training images: BLEU-1" in capsys.readouterr().out
    assert call("train", images, *options, "--resume") == 0
    capsys.readouterr()
    image = images / "scene-00000.png"
    assert call("caption", run, image, image, "--max-new-tokens", 6) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1] and lines[0].startswith(f"{image}\t")
    assert call("caption", run, image, "--temperature", 1.0, "--seed", 3, "--max-new-tokens", 6) == 0
    capsys.readouterr()
    assert call("evaluate", run, images) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("BLEU-4", "CIDEr", "ROUGE-L", "shuffled", "reference"))
    assert call("write-toy", tmp_path / "more", "--count", 3, "--size", 16) == 0
    assert len(list((tmp_path / "more").glob("*.png"))) == 3
    for arguments in ((), (images, "--toy-world")):
        with pytest.raises(SystemExit):
            call("train", *arguments)


def test_the_service_and_the_command_line_give_the_same_captions(quick, images, tmp_path):
    train_on_folder(images, tmp_path / "run", FolderRecipe(steps=2, batch_size=4))
    model = ServedCaptioner(tmp_path / "run")
    files = [images / f"scene-{number:05}.png" for number in range(3)]

    def request(file, text=PROMPT, **options) -> GenerationRequest:
        message = Message("user", text, (Image.open(file).convert("RGB"),))
        return GenerationRequest((message,), **({"max_new_tokens": 9} | options))

    def answers(requests) -> list[str]:
        rows = list(zip(*model.generate(requests), strict=True))
        assert all(
            sum(text is not None for text in row) <= request.max_new_tokens
            for row, request in zip(rows, requests, strict=True)
        )
        return ["".join(text or "" for text in row).strip() for row in rows]

    assert answers([request(file) for file in files]) == caption_files(tmp_path / "run", files, sampling=Sampling(9))
    sampled = [request(file, "", temperature=1.0, seed=5, max_new_tokens=4) for file in files]
    assert answers(sampled) == [answers([each])[0] for each in sampled]
    assert model.count_tokens(request(files[0])) == 16 + 1 + 1  # patches, class token, begin token
    for wrong in (request(files[0], "what is the time?"), GenerationRequest((Message("user", PROMPT),), 3)):
        with pytest.raises(UnsupportedRequest):
            model.count_tokens(wrong)


def test_mistakes_are_one_line(quick, images, tmp_path, capsys):
    (images / "scene-00003.png").write_bytes(b"no image")
    for arguments in (
        ("train", images, "--run", tmp_path / "run"),
        ("train", tmp_path / "nowhere"),
        ("caption", tmp_path, images / "scene-00000.png"),
        ("evaluate", tmp_path, images),
        ("evaluate", tmp_path),
        ("serve", tmp_path),
    ):
        assert call(*arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("train", "--batch-size", "0"),
        ("train", "--steps", "0"),
        ("train", "--steps", "-3"),
        ("train", "--seed", "-1"),
        ("train", "--seed", "9" * 30),
        ("train", "--held-out", "1"),
        ("train", "--held-out", "nan"),
        ("train", "--learning-rate", "0"),
        ("train", "--learning-rate", "nan"),
        ("train", "--tracker", "neptune"),
        ("evaluate", "--show", "-1"),
        ("caption", "--max-new-tokens", "0"),
        ("caption", "--seed", "-1"),
        ("serve", "--port", "70000"),
        ("write-toy", "--count", "0"),
        ("write-toy", "--size", "0"),
        ("train", "--run", "x" * 300),
    ],
)
def test_options_outside_of_their_range_are_named(command, option, value, capsys):
    arguments = ("run", "image.png") if command == "caption" else ("run",)
    with pytest.raises(SystemExit) as status:
        call(command, *arguments, option, value)
    assert status.value.code == 2 and f"argument {option}" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_does_not_exist_is_one_line(quick, images, tmp_path, capsys):
    train_on_folder(images, tmp_path / "run", FolderRecipe(steps=2, batch_size=4))
    for arguments in (
        ("train", images, "--run", tmp_path / "other"),
        ("caption", tmp_path / "run", images / "scene-00000.png"),
        ("evaluate", tmp_path / "run", images),
        ("evaluate", tmp_path / "run"),
        ("serve", tmp_path / "run"),
    ):
        for device, message in (("cuda", "this machine has only cpu"), ("quantum", "'quantum' is no device")):
            capsys.readouterr()
            assert call(*arguments, "--device", device) == 2
            assert message in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "preset: missing"),
        ("[]", "expected an object with preset"),
        ("[" * 100_000, "nested too deeply"),
        ('{"preset": "small", "held_out": "x", "seed": 0, "captions": ""}', 'held_out: "x"; expected a number'),
        ('{"preset": "huge", "held_out": 0.1, "seed": 0, "captions": ""}', "names preset 'huge'"),
    ],
)
def test_a_record_of_another_shape_is_named(content, message, tmp_path):
    (tmp_path / "captioner.json").write_text(content)
    with pytest.raises(CourseError, match=message):
        load_captioner(tmp_path)


def test_scores_of_shuffled_captions_are_lower(quick, images, tmp_path, monkeypatch):
    train_on_folder(images, tmp_path / "run", FolderRecipe(steps=2, batch_size=4, held_out=0.5))
    _, test = captioner_data.read_folder(images, 16, held_out=0.5)
    monkeypatch.setattr(evaluate, "generate_captions", lambda *_: [each[0] for each in test.captions])
    scores = evaluate_on_folder(tmp_path / "run", images)
    assert scores.captioner["BLEU-1"] == pytest.approx(1.0) and scores.shuffled["CIDEr"] < scores.captioner["CIDEr"]
    assert len(scores.examples) == len(test.captions)


@pytest.mark.parametrize(("vision_encoder", "blind"), [("clip", False), ("new", True)])
def test_the_toy_world_is_evaluated_by_seen_and_unseen_combinations(tmp_path, vision_encoder, blind, capsys):
    recipe = ToyWorldRecipe(steps=2, scenes=40, batch_size=8, vision_encoder=vision_encoder, blind=blind)
    result = train_on_toy_world(tmp_path / "run", recipe)
    results = evaluate_on_toy_world(tmp_path / "run", scenes=6)
    assert results.keys() == {"seen combinations", "unseen combinations"}
    assert {"true captions", "BLEU-4", "CIDEr", "ROUGE-L"} <= results["unseen combinations"].keys()
    loaded, tokenizer = load_captioner(tmp_path / "run")
    for one, other in zip(result.model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)
    if blind:
        pixels = captioner_data.gray_images(toy_images("test", 0, 3)[0].pixels)
        assert len(set(generate_captions(loaded, tokenizer, pixels))) == 1


def test_the_recorded_results_are_complete():
    recorded = recorded_results()
    assert [each["name"] for each in recorded["measurements"]] == ["true captions", "CIDEr"]
    for each in recorded["measurements"]:
        assert len(each["captioner"]) == len(each["blind"]) == len(recorded["seeds"])
        assert min(each["captioner"]) > max(each["blind"])


def test_the_readme_shows_the_recorded_results():
    page = (Path(command_line.__file__).parent / "README.md").read_text(encoding="utf-8")
    true, cider = recorded_results()["measurements"]
    values = true["captioner"]
    assert f"{100 * fmean(values):.1f} % ± {100 * half_width(values):.1f}" in page
    assert f"{fmean(cider['captioner']):.2f} ± {half_width(cider['captioner']):.2f}" in page
    assert f"{fmean(cider['blind']):.3f}" in page
