"""Both formats are read, and all bad records are reported with their indices and reasons."""

import json
import re

import pytest
from PIL import Image

from apps.assistant.record_checks import RecordRules
from apps.assistant.records import DESCRIBE, load_records, read_records
from apps.assistant.toy_files import TEST_FILES, TEST_TYPES, TRAINING_FILES, write_toy_world
from data.toybox.heldout import mentions_held_out
from data.toybox.scene import COLORS
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
    {"image": "good.png", "text": "A cat.", "image_id": 3, "source": "mine", "context": "", "height": 30, "type": "x"},
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
    # names that no file can have, or that lie elsewhere
    (conversation("<image>\nWhat?", "A cat.", image="x" * 300), "a name of 300 bytes; file systems allow 255"),
    ({"image": "\ud800.png", "text": "A cat."}, r"image is '\\ud800.png', with characters that no file name can have"),
    ({"image": "a\0.png", "text": "A cat."}, r"image is 'a\\x00.png', with characters"),
    ({"image": "folder", "text": "A cat."}, "folder is no file"),
    ({"image": "good.png/a.png", "text": "A cat."}, "good.png/a.png does not exist"),
    ({"image": "../good.png", "text": "A cat."}, "outside of the images' folder; allow that with outside_images"),
    ({"image": "folder/../../good.png", "text": "A cat."}, "outside of the images' folder"),
    ({"image": "/etc/hostname", "text": "A cat."}, "image is '/etc/hostname', outside of the images' folder"),
    # texts that cannot be written, and values of other types
    ({"image": "good.png", "text": "A cat. \ud83d"}, r"text holds half of a character .*: 'A cat. \\ud83d'"),
    ({"image": "good.png", "text": "A cat.", "prompt": "\udc00?"}, "prompt holds half of a character"),
    (conversation("<image>\nWhat?", "\ud800"), "turn 1 holds half of a character"),
    ({"image": "good.png", "text": "A cat.", "question_type": "\ud800"}, "question_type holds half of a character"),
    ({"image": "good.png", "text": "A cat.", "question_type": 3}, "question_type is 3; expected a text"),
    (conversation("<image>\nWhat?", "A cat.", roles=("human", "\ud800")), r"turn 1 is from '\\ud800'"),
    ({"image": "good.png", "\ud800": "A cat."}, r"it holds image, '\\ud800'"),
    # keys that would be ignored although they are meant
    ({"image": "good.png", "text": "A cat.", "promt": "What?"}, r"promt: no such key; did you mean prompt\?"),
    ({"image": "good.png", "text": "A cat.", "Prompt": "What?"}, "Prompt: no such key; did you mean prompt"),
    ({"image": "good.png", "text": "A cat.", "prompts": "What?"}, "prompts: no such key"),
    ({"image": "good.png", "text": "A cat.", "question": "What?"}, "question: no such key; did you mean prompt"),
    (
        {"image": "good.png", "text": "A cat.", "question_typ": "x"},
        "question_typ: no such key; did you mean question_ty",
    ),
    ({"image": "good.png", "answer": "A cat."}, "answer: no such key; did you mean text"),
    ({"images": ["good.png"], "text": "A cat."}, "images: no such key; did you mean image"),
    ({"image": "good.png", "conversation": []}, "conversation: no such key; did you mean conversations"),
    # both formats
    (conversation("<image>\nWhat?", "A cat.") | {"text": "A dog."}, "conversations and text; expected one of the two"),
    (conversation("<image>\nWhat?", "A cat.") | {"prompt": "Who?"}, "conversations and prompt; expected one"),
    # as written, since a Python dictionary has no key twice
    ('{"image": "good.png", "text": "A cat.", "text": "A dog."}', "text is given twice"),
    (
        '{"image": "good.png", "conversations": [{"from": "human", "value": "<image>", "value": "x"}]}',
        "turn 0 is .*once each",
    ),
]


@pytest.fixture
def folder(tmp_path, noise):
    Image.new("RGB", (20, 30), "red").save(tmp_path / "good.png")
    noise(64, 64).convert("L").save(tmp_path / "noise.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "noise.png").read_bytes()[:900])
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (300, 1)).save(tmp_path / "slim.png")
    (tmp_path / "folder").mkdir()
    return tmp_path


def write_file(folder, records):
    file = folder / "records.json"
    texts = (each if isinstance(each, str) and each[:1] == "{" else json.dumps(each) for each in records)
    file.write_text(f"[{', '.join(texts)}]")
    return file


def test_both_formats_give_the_same_records(folder):
    good, bad = read_records(write_file(folder, GOOD))
    assert bad == [] and list(good) == list(range(len(GOOD)))
    assert good[0].image == folder / "good.png"
    assert good[0].turns == (Turn("user", "<image>\nWhat is this?"), Turn("assistant", "A cat."))
    assert good[4].turns == good[0].turns and good[4].question_type == "animal"
    assert good[5].turns[0].text == good[6].turns[0].text == f"<image>\n{DESCRIBE}"
    assert [turn.role for turn in good[1].turns] == ["user", "assistant"] * 2
    assert good[2].image is None and good[3].turns[0].role == "system"


def test_every_bad_record_is_reported_with_index_and_reason(folder):
    """Good records are in between, so that a wrong index is noticed."""
    records = [record for pair in zip(GOOD * 10, [bad for bad, _ in BAD], strict=False) for record in pair]
    assert len(records) == 2 * len(BAD)
    good, bad = read_records(write_file(folder, records))
    assert sorted(good) == list(range(0, len(records), 2))
    assert [each.index for each in bad] == list(range(1, len(records), 2))
    for each, (_, reason) in zip(bad, BAD, strict=True):
        assert re.search(reason, each.reason), (each, reason)
        each.reason.encode()
        assert "\0" not in each.reason and len(each.reason) < 400


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
    [
        ("{}", "a JSON dict; expected a list"),
        ("[]", "an empty list"),
        ("[1", "cannot be read as JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "expected a list"),
    ],
)
def test_a_file_without_a_list_is_refused(content, error, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(CourseError, match=error):
        read_records(tmp_path / "x.json")


def test_the_toy_world_files_are_complete_and_repeatable_and_hold_nothing_held_out(tmp_path):
    for name in ("one", "two"):
        write_toy_world(tmp_path / name, 40, names=TRAINING_FILES, size=16)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 5 + 2 * 40 + 64 + 64
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    for file in TRAINING_FILES.values():
        records = load_records(tmp_path / "one" / file)
        assert len(records) == 40
        assert not any(mentions_held_out(turn.text) for record in records for turn in record.turns)
    captions = load_records(tmp_path / "one" / "test_captions.json")
    assert all(mentions_held_out(record.turns[-1].text) for record in captions)
    assert {record.question_type for record in load_records(tmp_path / "one" / "test_questions.json")} == set(
        TEST_TYPES
    )


def test_only_the_named_training_files_are_written(tmp_path):
    write_toy_world(tmp_path, 8, names=["texts"], size=16)
    assert {path.name for path in tmp_path.glob("*.json")} == {"train_texts.json", *TEST_FILES.values()}
    with pytest.raises(ValueError, match="no training file colors; choose among texts, captions"):
        write_toy_world(tmp_path, 8, names=["captions", "colors"])


def test_conversations_about_a_caption_need_no_image_and_can_be_answered_from_it(tmp_path):
    write_toy_world(tmp_path, 60, names=["texts"], size=16, caption_prompt="what is there?")
    descriptions = 0
    for record in load_records(tmp_path / "train_texts.json"):
        assert record.image is None and not any("<image>" in turn.text for turn in record.turns)
        description, first_question = record.turns[0].text.split(".\n")
        requests = [first_question, *(turn.text for turn in record.turns[2::2])]
        for request, answer in zip(requests, (turn.text for turn in record.turns[1::2]), strict=True):
            if request == "what is there?":
                assert answer == description
                descriptions += 1
            elif answer in COLORS:
                assert answer in description.split()
    assert descriptions > 10


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


def question(answer, prompt="What is this?", image="good.png"):
    return {"image": image, "prompt": prompt, "text": answer}


def test_different_answers_to_one_question_about_one_image_contradict_each_other(folder):
    records = [
        question("A cat."),
        question("A dog."),
        question("A cat."),  # the same again contradicts nothing
        question("A dog.", prompt="Which animal?"),
        question("A dog.", image="noise.png"),
        conversation("<image>\nWhat is this?", "A cow.", "And its color?", "Gray."),
        {"image": "good.png", "text": "A cat on a sofa."},  # captions: an image has many
        {"image": "good.png", "text": "A sofa with a cat."},
        conversation("Hello.", "Hello.", image=None),
        conversation("Hello.", "Good morning.", image=None),
    ]
    good, bad = read_records(write_file(folder, records))
    assert [each.index for each in bad] == [1, 5] and len(good) == 8
    assert "the question of record 0 about the same image, with another answer: 'A dog.'" in bad[0].reason
    assert "there 'A cat.'" in bad[0].reason and "several_answers" in bad[0].reason
    good, bad = read_records(write_file(folder, records), rules=RecordRules(several_answers=True))
    assert bad == [] and len(good) == len(records)


def test_images_elsewhere_are_allowed_by_an_option(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    records = [
        question("A cat.", image=str(folder / "good.png")),
        question("A cat.", image=f"../{folder.name}/good.png"),
    ]
    assert len(read_records(write_file(elsewhere, records))[1]) == 2
    file = write_file(folder, [records[0], question("A cat.", "Which?", f"../{folder.name}/good.png")])
    good, bad = read_records(file, rules=RecordRules(outside_images=True))
    assert bad == [] and good[0].image == folder / "good.png"


def test_the_reasons_for_skipped_records_are_listed_up_to_a_limit(folder, capsys):
    """The reason of each contradiction is another one, because it quotes the answers."""
    records = [question("A cat.")] + [question(f"Animal {number}.") for number in range(30)]
    assert len(load_records(write_file(folder, records), skip_bad=True)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 22 and "30 of 31 records are skipped" in lines[0] and lines[-1] == "  … and 10 other reasons"


def test_a_file_with_a_byte_order_mark_is_read(folder):
    file = write_file(folder, [GOOD[0]])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(load_records(file)) == 1
