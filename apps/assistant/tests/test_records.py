"""Both formats are read, and all bad records are reported with their indices and reasons."""

import json
import re

import pytest
from PIL import Image

from apps.assistant.records import DESCRIBE, load_records, read_records
from apps.assistant.toy_files import QUESTION_TYPES, write_toy_world
from data.toybox.heldout import mentions_held_out
from shared.errors import CourseError
from shared.images import open_image
from shared.tokenizers import Turn


def conversation(*texts, image="good.png", roles=("human", "assistant")):
    turns = [{"from": roles[position % 2], "value": text} for position, text in enumerate(texts)]
    return {"image": image, "conversations": turns} if image else {"conversations": turns}


GOOD = [
    conversation("<image>\nWhat is this?", "A cat."),
    conversation("What is this?\n<image>", "A cat.", "And what color?", "Gray.", roles=("human", "gpt")),
    conversation("Say hello.", "Hello.", image=None, roles=("user", "assistant")),
    {"conversations": [{"from": "system", "value": "Be kind."}, *conversation("Hi.", "Hello.")["conversations"]]},
    {"image": "good.png", "text": "A cat.", "prompt": "What is this?", "question_type": "animal", "id": 7},
    {"image": "good.png", "text": "A cat."},
]
BAD = [
    (conversation("<image>\nWhat?", "A cat.", image="none.png"), "none.png does not exist"),
    (conversation("<image>\nWhat?", "A cat.", image="broken.png"), "broken.png: unreadable image"),
    (conversation("<image>\nWhat?", "A cat.", image="text.png"), "text.png: unreadable image"),
    (conversation("<image>\nWhat?", "A cat.", image="slim.png"), "300 × 1 pixels"),
    (conversation("What is this?", "A cat."), "an image, and 0 <image>"),
    (conversation("<image><image>\nWhat?", "A cat."), "an image, and 2 <image>"),
    (conversation("<image>\nWhat?", "A cat.", image=None), "<image>, and no image"),
    (conversation("<image>\nWhat?", "An <image>."), "<image> in an answer"),
    (
        conversation("<image>\nWhat?"),
        "the turns are human; expected human and assistant in turn, ending with an answer",
    ),
    (conversation("<image>\nWhat?", "A cat.", roles=("human", "human")), "the turns are human, human"),
    (conversation("<image>\nWhat?", "A cat.", roles=("gpt", "human")), "the turns are gpt, human"),
    (conversation("<image>\nWhat?", "A cat.", roles=("human", "robot")), "turn 1 is from 'robot'"),
    (conversation("<image>\nWhat?", " \n"), "turn 1 is an empty answer"),
    (conversation("<image>\nWhat?", "A cat.", "", "Gray."), "turn 2 is an empty text"),
    ({"image": "good.png", "conversations": []}, "conversations is \\[\\]"),
    ({"image": "good.png", "conversations": "hello"}, "conversations is 'hello'"),
    ({"image": "good.png", "conversations": [{"from": "human"}]}, "turn 0 is {'from': 'human'}"),
    ({"image": "good.png", "conversations": [{"from": "human", "value": 3}]}, "turn 0"),
    ({"image": 3, "text": "A cat."}, "image is 3; expected a file's name"),
    ({"image": "good.png", "text": ""}, "an empty answer: text is empty"),
    ({"image": "good.png", "text": ["A cat."]}, "text is \\['A cat.'\\]; expected a text"),
    ({"image": "good.png", "text": "A cat.", "prompt": 1}, "prompt is 1; expected a text"),
    ({"image": "good.png", "text": "A cat.", "prompt": " "}, "prompt is empty"),
    ({"text": "A cat."}, "no image"),
    ({"image": "good.png", "caption": "A cat."}, "neither conversations nor text; it holds image, caption"),
    ("A cat.", "a str; expected an object"),
    (None, "a NoneType; expected an object"),
]


@pytest.fixture
def folder(tmp_path, noise):
    Image.new("RGB", (20, 30), "red").save(tmp_path / "good.png")
    noise(64, 64).convert("L").save(tmp_path / "noise.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "noise.png").read_bytes()[:900])
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (300, 1)).save(tmp_path / "slim.png")
    return tmp_path


def write_file(folder, records):
    file = folder / "records.json"
    file.write_text(json.dumps(records))
    return file


def test_both_formats_give_the_same_records(folder):
    good, bad = read_records(write_file(folder, GOOD))
    assert bad == [] and list(good) == list(range(len(GOOD)))
    assert good[0].image == folder / "good.png"
    assert good[0].turns == (Turn("user", "<image>\nWhat is this?"), Turn("assistant", "A cat."))
    assert good[4].turns == good[0].turns and good[4].question_type == "animal"
    assert good[5].turns[0].text == f"<image>\n{DESCRIBE}"
    assert [turn.role for turn in good[1].turns] == ["user", "assistant"] * 2
    assert good[2].image is None and good[3].turns[0].role == "system"


def test_every_bad_record_is_reported_with_index_and_reason(folder):
    """Good records are in between, so that a wrong index is noticed."""
    records = [record for pair in zip(GOOD * 5, [bad for bad, _ in BAD], strict=False) for record in pair]
    assert len(records) == 2 * len(BAD)
    good, bad = read_records(write_file(folder, records))
    assert sorted(good) == list(range(0, len(records), 2))
    assert [each.index for each in bad] == list(range(1, len(records), 2))
    for each, (_, reason) in zip(bad, BAD, strict=True):
        assert re.search(reason, each.reason), (each, reason)


def test_all_errors_of_a_record_are_reported(folder):
    _, (bad,) = read_records(write_file(folder, [conversation("What?", "", image="none.png")]))
    assert "does not exist" in bad.reason and "empty answer" in bad.reason and "0 <image>" in bad.reason


def test_bad_records_are_refused_or_skipped(folder, capsys):
    file = write_file(folder, [GOOD[0], BAD[0][0], GOOD[1], BAD[4][0]])
    with pytest.raises(CourseError) as error:
        load_records(file)
    assert error.match("2 bad records of 4") and error.match("\n  1: .*none.png") and error.match("\n  3: an image")
    assert len(load_records(file, skip_bad=True)) == 2
    assert "2 of 4 records are skipped:" in capsys.readouterr().err
    with pytest.raises(CourseError, match="nothing to train on"):
        load_records(write_file(folder, [BAD[0][0]]), skip_bad=True)


def test_images_may_be_in_another_folder_and_need_not_be_decoded(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    file = write_file(elsewhere, [GOOD[0], BAD[1][0], BAD[0][0]])
    assert read_records(file)[0] == {}
    good, bad = read_records(file, folder)
    assert (list(good), [each.index for each in bad]) == ([0], [1, 2])
    good, bad = read_records(file, folder, check_images=False)
    assert (list(good), [each.index for each in bad]) == ([0, 1], [2])


@pytest.mark.parametrize(
    ("content", "error"),
    [("{}", "a JSON dict; expected a list"), ("[]", "an empty list"), ("[1", "cannot be read as JSON")],
)
def test_a_file_without_a_list_is_refused(content, error, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(CourseError, match=error):
        read_records(tmp_path / "x.json")


def test_the_toy_world_files_are_complete_and_repeatable_and_hold_nothing_held_out(tmp_path):
    for name in ("one", "two"):
        write_toy_world(tmp_path / name, 40, size=16)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 4 + 40 + 64 + 64
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    for name in ("train_captions", "train_instructions"):
        records = load_records(tmp_path / "one" / f"{name}.json")
        assert len(records) == 40
        assert not any(mentions_held_out(turn.text) for record in records for turn in record.turns)
    captions = load_records(tmp_path / "one" / "test_captions.json")
    assert all(mentions_held_out(record.turns[-1].text) for record in captions)
    assert {record.question_type for record in load_records(tmp_path / "one" / "test_questions.json")} == set(
        QUESTION_TYPES
    )


def test_images_of_every_mode_become_upright_rgb(tmp_path):
    turned = Image.new("RGB", (4, 2), "white")
    turned.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90° clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    image = open_image(tmp_path / "turned.png")
    assert image.size == (2, 4) and image.getpixel((1, 0)) == (255, 0, 0)

    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert open_image(clear).getpixel((0, 0)) == (255, 255, 255)
    gray = Image.new("I;16", (2, 2), 0x8000)
    assert open_image(gray).getpixel((0, 0)) == (128, 128, 128)
    assert open_image(Image.new("CMYK", (2, 2), (0, 0, 0, 255))).getpixel((0, 0)) == (0, 0, 0)
