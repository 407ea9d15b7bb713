"""COCO Captions and VQAv2, on small files in the official formats, and on what can be wrong with files."""

import json

import numpy as np
import pytest
from PIL import Image

from data.datasets.coco_captions import coco_captions, read_captions
from data.datasets.image_folder import read_image
from data.datasets.vqa_v2 import read_questions, vqa_v2
from shared.errors import CourseError
from shared.evaluation import score_answers, score_captions

IDS = (139, 285, 632)


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def photographs(folder, name):
    folder.mkdir(parents=True)
    for number, image_id in enumerate(IDS):
        Image.new("RGB", (16, 12), (80 * number, 0, 0)).save(folder / name.format(image_id))


def caption_file() -> dict:
    """Three images and their captions, with every key that the official file has, in no special order."""
    captions = [
        (285, "A big bear. "),
        (139, "A kitchen with chairs."),
        (139, "A TV in a kitchen."),
        (632, "A bed\n"),
        (285, "Ein Bär"),
    ]
    return {
        "info": {"description": "COCO 2017 Dataset", "year": 2017, "version": "1.0"},
        "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}],
        "images": [
            {
                "license": 4,
                "file_name": f"{image_id:012d}.jpg",
                "coco_url": f"http://images.cocodataset.org/val2017/{image_id:012d}.jpg",
                "height": 12,
                "width": 16,
                "date_captured": "2013-11-21 01:34:01",
                "flickr_url": "http://example.com",
                "id": image_id,
            }
            for image_id in IDS
        ],
        "annotations": [{"image_id": i, "id": n, "caption": text} for n, (i, text) in enumerate(captions)],
    }


def vqa_files() -> tuple[dict, dict]:
    records = [
        (139000, 139, "What color is the sofa?"),
        (285001, 285, "How many bears?"),
        (139002, 139, "Is it day?"),
    ]
    kinds = {139000: ("what color", "other"), 285001: ("how many", "number"), 139002: ("is it", "yes/no")}
    answers_of = {139000: ["red"] * 6 + ["brown"] * 4, 285001: ["1"] * 10, 139002: ["yes"] * 9 + ["no"]}
    head = {
        "info": {"version": "2.0"},
        "license": {"name": "Creative Commons Attribution 4.0 International License"},
        "data_type": "mscoco",
        "data_subtype": "val2014",
    }
    questions = head | {
        "task_type": "Open-Ended",
        "questions": [{"image_id": i, "question": text, "question_id": q} for q, i, text in records],
    }
    annotations = head | {
        "annotations": [
            {
                "question_type": kinds[q][0],
                "multiple_choice_answer": answers_of[q][0],
                "answers": [
                    {"answer": text, "answer_confidence": "yes", "answer_id": person + 1}
                    for person, text in enumerate(answers_of[q])
                ],
                "image_id": i,
                "answer_type": kinds[q][1],
                "question_id": q,
            }
            for q, i, _ in reversed(records)
        ]
    }
    return questions, annotations


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A data folder with the small files where the official ones would lie."""
    monkeypatch.setenv("MULTIMODAL_DATA", str(tmp_path))
    write(tmp_path / "coco/annotations/captions_val2017.json", caption_file())
    photographs(tmp_path / "coco/val2017", "{:012d}.jpg")
    questions, annotations = vqa_files()
    write(tmp_path / "vqa/v2_OpenEnded_mscoco_val2014_questions.json", questions)
    write(tmp_path / "vqa/v2_mscoco_val2014_annotations.json", annotations)
    photographs(tmp_path / "coco/val2014", "COCO_val2014_{:012d}.jpg")
    return tmp_path


def test_captions_come_with_their_images(folder):
    data = coco_captions("val2017")
    assert [each.image_id for each in data] == list(IDS)
    assert [each.captions for each in data] == [
        ("A kitchen with chairs.", "A TV in a kitchen."),
        ("A big bear.", "Ein Bär"),
        ("A bed",),
    ]
    assert [read_image(each.file, 8)[4, 4, 0] // 70 for each in data] == [0, 1, 2]
    references = {each.image_id: each.captions for each in data}
    assert score_captions({each.image_id: each.captions[0] for each in data}, references)["BLEU-4"] > 0.5


def test_questions_come_with_their_images_and_answers(folder):
    data = vqa_v2("val2014")
    assert [each.question_id for each in data] == [139000, 285001, 139002]
    first = data[0]
    assert (first.question, first.answer, first.question_type, first.answer_type) == (
        "What color is the sofa?",
        "red",
        "what color",
        "other",
    )
    assert first.answers == ("red",) * 6 + ("brown",) * 4 and first.file.name == "COCO_val2014_000000000139.jpg"
    assert np.array_equal(
        read_image(data[1].file, 8)[4, 4], read_image(folder / "coco/val2017/000000000285.jpg", 8)[4, 4]
    )
    people = {each.question_id: each.answers for each in data}
    scores = score_answers(
        {139000: "Red", 285001: "2", 139002: "no"}, people, {e.question_id: e.answer_type for e in data}
    )
    assert scores["accuracy/other"] == 1.0 and scores["accuracy/number"] == 0.0
    assert scores["accuracy/yes/no"] == pytest.approx(0.3)


def test_the_test_split_has_questions_only(folder):
    questions, _ = vqa_files()
    write(folder / "vqa/v2_OpenEnded_mscoco_test-dev2015_questions.json", questions)
    photographs(folder / "coco/test2015", "COCO_test2015_{:012d}.jpg")
    data = vqa_v2("test-dev2015")
    assert len(data) == 3 and data[0].answers == () and data[0].answer == ""
    assert data[0].file == folder / "coco/test2015/COCO_test2015_000000000139.jpg"


def test_missing_files_are_named_with_their_source(folder):
    with pytest.raises(CourseError) as caught:
        coco_captions("train2017")
    for part in (
        "captions_train2017.json does not exist",
        "annotations_trainval2017.zip",
        "zips/train2017.zip",
        str(folder),
    ):
        assert part in str(caught.value)
    with pytest.raises(
        CourseError, match=r"train2014_questions\.json does not exist.*v2_Annotations_Train_mscoco\.zip"
    ):
        vqa_v2("train2014")


@pytest.mark.parametrize("read", [lambda **o: coco_captions("val2017", **o), lambda **o: vqa_v2("val2014", **o)])
def test_a_missing_image_is_named_or_left_out(folder, read):
    for path in folder.glob("coco/*/*285.jpg"):
        path.unlink()
    with pytest.raises(CourseError, match=r"1 of \d images are missing, the first is .*285\.jpg.* skip_missing=True"):
        read()
    assert [each.image_id for each in read(skip_missing=True) if each.image_id == 285] == []
    assert {each.image_id for each in read(skip_missing=True)} >= {139}
    for path in folder.glob("coco/*/*.jpg"):
        path.unlink()
    with pytest.raises(CourseError, match=r"images are missing.*zip"):
        read(skip_missing=True)


@pytest.mark.parametrize("keep", [0, 1, 200, -2])
def test_a_file_that_is_cut_off_is_named(folder, keep):
    for name in ("coco/annotations/captions_val2017.json", "vqa/v2_mscoco_val2014_annotations.json"):
        file = folder / name
        file.write_text(file.read_text()[:keep])
        with pytest.raises(
            CourseError, match=rf"{file.name} cannot be read as JSON .* of [\d,]+\)\. The download may be"
        ):
            coco_captions() if "captions" in name else vqa_v2()


def broken(change):
    content = caption_file()
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds a JSON list"),
        ({}, "no list 'images'; it holds nothing"),
        (vqa_files()[0], "no list 'images'; it holds info, license.*questions"),
        (broken(lambda c: c["images"].append({"id": 7})), r"images\[3\] has file_name = None; expected a text"),
        (broken(lambda c: c["images"].append("7.jpg")), r"images\[3\] is a str; expected an object with id, file_name"),
        (broken(lambda c: c["images"].append(c["images"][0])), r"images\[3\] has the id of images\[0\], 139"),
        (broken(lambda c: c["images"][1].update(id="285")), r"images\[1\] has id = '285'; expected a whole number"),
        (broken(lambda c: c["images"][1].update(id=True)), r"images\[1\] has id = True; expected a whole number"),
        (broken(lambda c: c["annotations"][2].pop("caption")), r"annotations\[2\] has caption = None"),
        (broken(lambda c: c["annotations"].pop(3)), r"1 images have no caption \(the first is 632\)"),
        (broken(lambda c: c["images"].pop(0)), r"1 images have captions and are not listed .* \(the first is 139\)"),
    ],
    ids=[
        "list",
        "empty",
        "another format",
        "no name",
        "no object",
        "twice",
        "text id",
        "boolean id",
        "no text",
        "no caption",
        "unknown image",
    ],
)
def test_captions_that_do_not_fit_are_named(folder, content, message):
    file = folder / "coco/annotations/captions_val2017.json"
    write(file, content)
    with pytest.raises(CourseError, match=message) as caught:
        read_captions(file, folder / "coco/val2017")
    assert str(file) in str(caught.value)


def test_file_names_with_folders_find_their_images(tmp_path):
    """Equal base names stay apart, and a name may begin with the folder of the images or have another form."""
    content = caption_file()
    names = ("a/1.jpg", "b/1.jpg", "val2017/pat\u00e9.jpg")
    for record, name in zip(content["images"], names, strict=True):
        record["file_name"] = name
    for place in ("a/1.jpg", "b/1.jpg", "pate\u0301.jpg"):
        (tmp_path / "val2017" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "val2017" / place)
    write(tmp_path / "captions.json", content)
    files = [each.file for each in read_captions(tmp_path / "captions.json", tmp_path / "val2017")]
    assert [str(file.relative_to(tmp_path / "val2017")) for file in files] == ["a/1.jpg", "b/1.jpg", "pate\u0301.jpg"]
    content["images"][0]["file_name"] = "../captions.json"
    write(tmp_path / "captions.json", content)
    with pytest.raises(CourseError, match="1 of 3 images are missing"):
        read_captions(tmp_path / "captions.json", tmp_path / "val2017")


def drop_answers(questions, annotations):
    annotations["annotations"].pop()


def drop_question(questions, annotations):
    questions["questions"].pop(0)


def other_image(questions, annotations):
    annotations["annotations"][0]["image_id"] = 632


def without_annotators(questions, annotations):
    annotations["annotations"][1]["answers"] = []


def no_text(questions, annotations):
    annotations["annotations"][1]["answers"][4] = {"answer": None}


def twice(questions, annotations):
    annotations["annotations"].append(annotations["annotations"][0])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_answers, r"1 questions have no answers \(the first is 139000\)"),
        (drop_question, r"1 answers have no question \(the first is 139000\)"),
        (other_image, "question 139002 is about image 632, but the question file assigns it to 139"),
        (without_annotators, r"annotations\[1\] has no answers; VQAv2 has ten"),
        (no_text, r"annotations\[1\]: answers\[4\] has answer = None; expected a text"),
        (twice, r"annotations\[3\] has the question_id of annotations\[0\]"),
    ],
)
def test_questions_and_answers_that_do_not_fit_are_named(folder, spoil, message):
    questions, annotations = vqa_files()
    spoil(questions, annotations)
    write(folder / "q.json", questions)
    write(folder / "a.json", annotations)
    with pytest.raises(CourseError, match=message):
        read_questions(folder / "q.json", folder / "a.json", folder / "coco/val2014")
