"""VQAv2: questions about COCO's photographs, each answered by ten people (arXiv:1612.00837; CC BY 4.0).

Read from the official files, unpacked in `vqa/`, `vqa_v2/` or `vqav2/` of the data folder, and COCO's images of 2014:

    vqa/v2_OpenEnded_mscoco_val2014_questions.json
    vqa/v2_mscoco_val2014_annotations.json
    coco/val2014/COCO_val2014_000000262148.jpg

They are not downloaded automatically, and their official home publishes no checksums.
"""

from dataclasses import dataclass
from pathlib import Path

from data.datasets.annotations import existing_files, read_annotations, records, require_ids
from data.datasets.coco_captions import FOLDERS as COCO_FOLDERS
from data.datasets.coco_captions import HOME as COCO_HOME
from data.datasets.download import data_folder, find
from shared.errors import CourseError

FOLDERS = ("vqa", "vqa_v2", "vqav2")
HOME = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
QUESTION_FIELDS = {"question_id": int, "image_id": int, "question": str}
ANNOTATION_FIELDS = {
    "question_id": int,
    "image_id": int,
    "question_type": str,
    "answer_type": str,
    "multiple_choice_answer": str,
    "answers": list,
}


@dataclass(frozen=True)
class VisualQuestion:
    """A question about a photograph.

    answers        ten annotators' answers, for `shared.evaluation.vqa_accuracy`; empty in the test splits
    answer         the most frequent answer, for training; "" in the test splits
    question_type  its first words, such as "how many"
    answer_type    "yes/no", "number" or "other"
    """

    question_id: int
    image_id: int
    file: Path
    question: str
    answers: tuple[str, ...] = ()
    answer: str = ""
    question_type: str = ""
    answer_type: str = ""


def vqa_v2(split: str = "val2014", *, skip_missing: bool = False) -> list[VisualQuestion]:
    """Return the questions of a split: "train2014" (443,757), "val2014" (214,354), "test2015", "test-dev2015".

    With `skip_missing`, questions about missing images are left out. Raises CourseError when files are missing (with
    instructions), truncated, or inconsistent with each other.
    """
    name = f"v2_OpenEnded_mscoco_{split}_questions.json"
    questions = find(FOLDERS, name) or data_folder() / FOLDERS[0] / name
    subset = "test2015" if split.startswith("test") else split
    images = find(COCO_FOLDERS, subset) or data_folder() / COCO_FOLDERS[0] / subset
    part = {"train": "Train", "val": "Val"}.get(subset[:-4], "Test")
    annotations = None if part == "Test" else questions.with_name(f"v2_mscoco_{split}_annotations.json")
    get = f"Get {HOME}/v2_Questions_{part}_mscoco.zip" + (
        f" and {HOME}/v2_Annotations_{part}_mscoco.zip" if annotations else ""
    )
    get += f" and unpack in {questions.parent}; get {COCO_HOME}/zips/{subset}.zip and unpack in {images.parent}."
    return read_questions(questions, annotations, images, skip_missing=skip_missing, how_to_get=get)


def read_questions(
    questions: Path,
    annotations: Path | None,
    images: Path,
    *,
    skip_missing: bool = False,
    how_to_get: str = "Give the path of another file.",
) -> list[VisualQuestion]:
    """Return the questions of any pair of files in VQA's format, in the order of the questions' file.

    Raises CourseError as `vqa_v2` does, also for questions without answers, answers without a question, and files that
    disagree about a question's image.
    """
    content = read_annotations(questions, how_to_get)
    asked_records = records(content, questions, "questions", QUESTION_FIELDS, unique="question_id")
    annotation_of = {} if annotations is None else _answers(annotations, how_to_get)
    if annotations is not None:
        require_ids(
            (each["question_id"] for each in asked_records), annotation_of, annotations, "questions have no answers"
        )
        require_ids(
            annotation_of,
            {each["question_id"]: None for each in asked_records},
            annotations,
            "answers have no question",
        )
    names = {each["image_id"]: f"COCO_{images.name}_{each['image_id']:012d}.jpg" for each in asked_records}
    files = existing_files(names, images, how_to_get, skip_missing=skip_missing)
    return [_question(each, files, annotation_of, annotations) for each in asked_records if each["image_id"] in files]


def _answers(annotations: Path, how_to_get: str) -> dict[int, dict]:
    """Return the annotation of each question by its id, with the answers as strings."""
    content = read_annotations(annotations, how_to_get)
    annotation_of = {}
    for index, each in enumerate(records(content, annotations, "annotations", ANNOTATION_FIELDS, unique="question_id")):
        answers = records(
            {"answers": each["answers"]}, Path(f"{annotations}: annotations[{index}]"), "answers", {"answer": str}
        )
        if not answers:
            raise CourseError(f"{annotations}: annotations[{index}] has no answers; VQAv2 has ten per question")
        annotation_of[each["question_id"]] = each | {"answers": tuple(answer["answer"] for answer in answers)}
    return annotation_of


def _question(
    record: dict, files: dict[int, Path], annotation_of: dict[int, dict], annotations: Path | None
) -> VisualQuestion:
    number, image = record["question_id"], record["image_id"]
    if annotations is None:
        return VisualQuestion(number, image, files[image], record["question"])
    annotation = annotation_of[number]
    if annotation["image_id"] != image:
        raise CourseError(
            f"{annotations}: question {number} is about image {annotation['image_id']}, "
            f"but the question file assigns it to {image}"
        )
    return VisualQuestion(
        number,
        image,
        files[image],
        record["question"],
        annotation["answers"],
        annotation["multiple_choice_answer"],
        annotation["question_type"],
        annotation["answer_type"],
    )
