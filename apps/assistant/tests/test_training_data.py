"""Records as batches: the cut at the context, and losses of unequal answers."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from apps.assistant import __main__ as command_line
from apps.assistant.build import build_model
from apps.assistant.config import CONFIGURATIONS, ModelConfig, load, save
from apps.assistant.evaluate import caption_items
from apps.assistant.records import IMAGE, Record, load_records
from apps.assistant.toy_files import write_toy_world
from apps.assistant.train import empty_training_data
from apps.assistant.training_data import TrainingData, check_records, read_training_data
from shared.errors import CourseError
from shared.testing import assert_loss_adds_up
from shared.tokenizers import Turn


@pytest.fixture(scope="module")
def parts(model_folders):
    return build_model(ModelConfig(*map(str, model_folders)))


@pytest.fixture
def data_at(parts, model_folders):
    """Return a function from the length of the context to what makes batches; an image has four tokens."""
    return lambda context: empty_training_data(ModelConfig(*map(str, model_folders), context=context), parts)


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def late_image(image) -> Record:
    """Return a conversation whose second question has the image."""
    texts = (("user", "red?"), ("assistant", "yes."), ("user", f"{IMAGE}\nand here?"), ("assistant", "a blue star."))
    return Record(image, tuple(Turn(role, text) for role, text in texts))


def early_image(image) -> Record:
    return Record(image, (Turn("user", f"{IMAGE}\nred?"), Turn("assistant", "a large red star, and a blue circle.")))


@pytest.mark.parametrize("make", [early_image, late_image])
def test_every_cut_holds_all_tokens_of_an_image_or_none(make, data_at, parts, image):
    """Every context in turn: the loss can be computed exactly where the check finds no error."""
    record = make(image)
    image_id = parts.tokenizer.special_tokens[IMAGE]
    uncut = data_at(1000).fit(record)
    length = len(uncut.conversation.token_ids)
    image_counts, errors = set(), set()
    for context in range(2, length + 3):
        data = replace(data_at(context), records=[record])
        conversation, fitted_image, error = data.fit(record)
        count = conversation.token_ids.count(image_id)
        assert count in (0, 4) and (fitted_image is None) == (count == 0)
        assert conversation.token_ids == uncut.conversation.token_ids[: len(conversation.token_ids)]
        assert len(conversation.token_ids) <= context
        assert data.length_error(record) == error
        if error is None:
            loss, _ = data.loss(parts.model, torch.tensor([0]))
            assert loss.terms >= 1 and loss.total.isfinite()
        image_counts.add(count)
        errors.add(error is None)
    assert image_counts == {0, 4} and errors == {True, False}
    assert length == context - 2


def test_an_image_cut_away_leaves_whole_turns(data_at, parts, image):
    record = late_image(image)
    uncut = data_at(1000).fit(record).conversation.token_ids
    first = uncut.index(parts.tokenizer.special_tokens[IMAGE])
    inside = data_at(first + 2).fit(record)
    assert inside.error is None and inside.image is None
    text = parts.tokenizer.decode(inside.conversation.token_ids)
    assert text == "<|begin|><|turn|>user\nred?<|end|>\n<|turn|>assistant\nyes.<|end|>\n"


def test_an_image_that_does_not_fit_is_named(data_at, parts, image):
    record = early_image(image)
    first = data_at(1000).fit(record).conversation.token_ids.index(parts.tokenizer.special_tokens[IMAGE])
    error = f"the 4 tokens of its image end after the first {first + 2}, the context"
    assert data_at(first + 2).length_error(record) == error


def records_of_all_lengths(folder) -> list[dict]:
    Image.new("RGB", (20, 20), "red").save(folder / "a.png")
    questions = [f"{'é' * number} red?" for number in range(0, 60, 4)] + ["red? " * number for number in (1, 9, 30)]
    return [{"image": "a.png", "prompt": question, "text": "a red star."} for question in questions] + [
        {"image": "none.png", "text": "x"},
        {"image": "lost.png", "text": "x"},
        {"image": "a.png", "text": ""},
    ]


def test_the_check_of_a_file_and_training_name_the_same_records(tmp_path, model_folders, parts, capsys):
    """`check-data --config` exits with 1 exactly for what training refuses, and lists the same indices."""
    (tmp_path / "mine.json").write_text(json.dumps(records_of_all_lengths(tmp_path)))
    debug = load(CONFIGURATIONS / "debug.json")
    configuration = replace(debug, model=ModelConfig(*map(str, model_folders), context=80))
    save(configuration, tmp_path / "config.json")
    data = empty_training_data(configuration.model, parts)
    good, bad = check_records(tmp_path / "mine.json", None, data)
    assert 3 < len(bad) < 15 and good
    assert all(not data.fit(record).error for record in good.values())
    check = ["check-data", str(tmp_path / "mine.json"), "--config", str(tmp_path / "config.json")]
    assert command_line.main(check) == 1
    listed = capsys.readouterr().out
    assert all(f"\n  {each.index}: {each.reason}" in listed for each in bad)
    with pytest.raises(CourseError) as error:
        read_training_data([(tmp_path / "mine.json", None)], data, skip_bad=False)
    assert str(error.value).splitlines()[1 : 1 + len(bad)] == listed.splitlines()[1 : 1 + len(bad)]
    retained = read_training_data([(tmp_path / "mine.json", None)], data, skip_bad=True)
    assert list(retained.records) == list(good.values())


def test_skipped_records_are_counted_by_reason(tmp_path, model_folders, parts, capsys):
    (tmp_path / "mine.json").write_text(json.dumps(records_of_all_lengths(tmp_path)))
    data = empty_training_data(ModelConfig(*map(str, model_folders), context=80), parts)
    read_training_data([(tmp_path / "mine.json", None)], data, skip_bad=True)
    lines = capsys.readouterr().err.splitlines()
    too_long = sum(data.length_error(each) is not None for each in all_records(tmp_path, data))
    assert lines[0].endswith(f"{too_long + 3} of 21 records are skipped:")
    assert sorted(lines[1:]) == sorted(
        [
            f"  {too_long} × no answer within the first 80 tokens (first: {first_too_long(tmp_path, data)})",
            "  2 × the image does not exist (first: 18)",
            "  1 × an empty answer: text is empty (first: 20)",
        ]
    )


def all_records(folder, data: TrainingData) -> list[Record]:
    return load_records(folder / "mine.json", skip_bad=True, caption_prompt=data.caption_prompt)


def first_too_long(folder, data: TrainingData) -> int:
    return next(row for row, record in enumerate(all_records(folder, data)) if data.length_error(record))


def test_losses_of_unequal_answers_add_up(data_at, parts, image):
    answers = ("red.", "a large red star, and a small blue circle below it.", "no star.")
    records = [Record(image, (Turn("user", f"{IMAGE}\nwhat?"), Turn("assistant", text))) for text in answers]
    data = replace(data_at(100), records=records)
    assert_loss_adds_up(lambda rows: data.loss(parts.model, torch.tensor(rows)), 3)


def test_the_configurations_prompt_requests_captions_everywhere(tmp_path, model_folders, parts, noise):
    """In training, in evaluation and in service; the toy world's captions have none of their own."""
    write_toy_world(tmp_path, 2, size=16)
    prompt = "what do you find?"
    data = empty_training_data(ModelConfig(*map(str, model_folders), caption_prompt=prompt), parts)
    trained = read_training_data([(tmp_path / "train_captions.json", None)], data, skip_bad=False)
    evaluated = caption_items(str(tmp_path / "test_captions.json"), prompt)
    expected = f"{IMAGE}\n{prompt}"
    assert {record.turns[0].text for record in trained.records} == {item.turns[0].text for item in evaluated}
    assert trained.records[0].turns[0].text == expected
