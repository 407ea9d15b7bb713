"""COCO Captions: photographs of everyday scenes, five captions each (arXiv:1504.00325; annotations CC BY 4.0).

Read from the official files, unpacked in `coco/` or `mscoco/` of the data folder:

    coco/annotations/captions_val2017.json
    coco/val2017/000000000139.jpg

They are not downloaded automatically: the images alone are 19 GB. COCO publishes no checksums.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.datasets.annotations import existing_files, read_annotations, records, require_ids
from data.datasets.download import data_folder, find

FOLDERS = ("coco", "mscoco")
HOME = "http://images.cocodataset.org"


@dataclass(frozen=True)
class CaptionedImage:
    """A photograph and its captions; `data.datasets.image_folder.read_image` reads `file`."""

    image_id: int
    file: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionRecord:
    """What an annotation file states about a photograph."""

    image_id: int
    file_name: str
    captions: tuple[str, ...]


def coco_captions(split: str = "val2017", *, skip_missing: bool = False) -> list[CaptionedImage]:
    """Return the images of a split: "train2017" (118,287), "val2017" (5,000), or those of 2014.

    With `skip_missing`, images whose files are missing are left out. Raises CourseError when files are missing
    (with instructions), truncated, or inconsistent with each other.
    """
    year = split[-4:]
    annotations = find(FOLDERS, f"annotations/captions_{split}.json")
    if annotations is None:
        annotations = data_folder() / FOLDERS[0] / "annotations" / f"captions_{split}.json"
    get = (
        f"Get {HOME}/annotations/annotations_trainval{year}.zip and {HOME}/zips/{split}.zip, unpack both in "
        f"{annotations.parents[1]}, or set MULTIMODAL_DATA to the folder that holds {FOLDERS[0]}/."
    )
    return read_captions(annotations, annotations.parents[1] / split, skip_missing=skip_missing, how_to_get=get)


def read_captions(
    annotations: Path, images: Path, *, skip_missing: bool = False, how_to_get: str = "Give the path of another file."
) -> list[CaptionedImage]:
    """Return the images of any annotation file in COCO's format, with their captions in the file's order.

    `file_name` may be a path with folders. Raises CourseError as `coco_captions` does: also for captions of an unknown
    image, and images without a caption.
    """
    listed = read_caption_records(read_annotations(annotations, how_to_get), annotations)
    names = {each.image_id: each.file_name for each in listed}
    files = existing_files(names, images, how_to_get, skip_missing=skip_missing)
    return [
        CaptionedImage(each.image_id, files[each.image_id], each.captions) for each in listed if each.image_id in files
    ]


def read_caption_records(content: Mapping[str, Any], annotations: Path) -> list[CaptionRecord]:
    """Return the images that an annotation file lists, with their captions. Raises CourseError as `read_captions`."""
    photographs = records(content, annotations, "images", {"id": int, "file_name": str}, unique="id")
    annotated = records(content, annotations, "annotations", {"image_id": int, "caption": str})
    captions: dict[int, list[str]] = {}
    for each in annotated:
        captions.setdefault(each["image_id"], []).append(each["caption"].strip())
    names = {each["id"]: each["file_name"] for each in photographs}
    require_ids(captions, names, annotations, "images have captions and are not listed among the images")
    require_ids(names, captions, annotations, "images have no caption")
    return [CaptionRecord(key, name, tuple(captions[key])) for key, name in names.items()]
