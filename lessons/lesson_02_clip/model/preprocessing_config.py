"""Read the image preprocessing of a published folder as its image processor class would.

A file may leave any setting out, and then the class decides: CLIP crops the center, SigLIP does not, and each has its
own mean. So the class is read first, then every setting that it has. A step that is null is not done.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from shared.errors import CourseError
from shared.pretrained.checkpoint import CONFIG, read_json

FILE = "preprocessor_config.json"
PROCESSOR_FILE, PART = "processor_config.json", "image_processor"
"""A newer file for tokenizer and images together, and its part for images, which wins over the older file."""

# Mean and standard deviation of red, green and blue over the images that CLIP was trained on.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

REQUIRED: dict[str, bool | float] = {
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"), True),
    "rescale_factor": 1 / 255,
    "use_square_size": False,
}
"""Settings that every class has, and the only value of each that is supported."""
NULL_ALLOWED = ("use_square_size", "do_convert_rgb")
"""Of these, published files have null: it does what the supported value does, for images in RGB."""
_EVERY_CLASS = {
    "resample": 3,
    "image_mean": MEAN,
    "image_std": STD,
    "default_to_square": False,
    "do_center_crop": False,
    "crop_size": None,
    "do_pad": False,
    "pad_size": None,
}
_CROPPING = {**_EVERY_CLASS, "size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224}
_HALF = {"image_mean": 0.5, "image_std": 0.5}
CLASS_DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": _CROPPING,
    "LlavaImageProcessor": _CROPPING,
    "BitImageProcessor": _CROPPING,  # DINOv2
    "SiglipImageProcessor": {**_EVERY_CLASS, **_HALF, "size": {"height": 224, "width": 224}},
    "BlipImageProcessor": {**_EVERY_CLASS, "size": {"height": 384, "width": 384}, "default_to_square": True},
}
CLASS_OF_MODEL = {"clip": "CLIP", "siglip": "Siglip", "llava": "Llava", "dinov2": "Bit", "blip-2": "Blip"}
"""The class of a model whose file names none."""

MAX_SIDE = 16_384


def read_image_processor(folder: Path | str) -> dict[str, Any]:
    """Return the fields of `ImagePreprocessing` from the settings of a published folder.

    Raises CourseError when no file has them, and one that lists every setting that is malformed or not supported.
    """
    file, config = _find_settings(Path(folder))
    name = _class_name(config, Path(folder))
    if name not in CLASS_DEFAULTS:
        raise CourseError(f"{file} belongs to the class {name}; supported are {', '.join(CLASS_DEFAULTS)}")
    problems = [
        f"{key} is {_abbreviated(config[key])}, supported is only {value!r}"
        for key, value in REQUIRED.items()
        if key in config and not _is_value(config[key], value) and not (config[key] is None and key in NULL_ALLOWED)
    ]
    settings, values = CLASS_DEFAULTS[name] | config, {}
    for key, parse in _PARSERS.items():
        try:
            values[key] = parse(settings[key])
        except ValueError as error:
            problems.append(f"{key} is {_abbreviated(settings[key])}, expected {error}")
    if not problems:
        try:
            return _fields(name, values)
        except ValueError as error:
            problems.append(str(error))
    raise CourseError(f"{file} describes no preprocessing that is supported here: " + "; ".join(problems))


def _find_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file and the settings that the published class would read."""
    file = folder / PROCESSOR_FILE
    if file.exists():
        part = read_json(file).get(PART)
        if isinstance(part, dict):
            return file, part
        if part is not None:
            raise CourseError(f"{file} has {_abbreviated(part)} as {PART}; expected an object of settings")
    return folder / FILE, read_json(
        folder / FILE, f"a published model has its image preprocessing there, or in {PROCESSOR_FILE} as {PART}"
    )


def find_processor_settings(
    folder: Path, image_processor: str, model_types: Collection[str]
) -> tuple[Path, dict[str, Any]]:
    """Return the file and the settings of an image processor of which only one class is supported.

    image_processor  the name of that class, without the mark of its implementation (Fast, Pil)
    model_types      of the models that have this processor, for files that name no class

    Raises CourseError for another class, and for missing or malformed settings.
    """
    file, config = _find_settings(folder)
    name = config.get("image_processor_type")
    if name is None and (folder / CONFIG).exists():
        model_type = read_json(folder / CONFIG).get("model_type")
        name = image_processor if model_type in model_types else f"image processor of {model_type}"
    if name is not None and str(name).removesuffix("Fast").removesuffix("Pil") != image_processor:
        raise CourseError(f"{file} belongs to the class {name}; expected {image_processor}")
    return file, config


def _class_name(config: Mapping[str, Any], folder: Path) -> str:
    """Return the name of the published class, without the mark of its implementation (Fast, Pil)."""
    name = config.get("image_processor_type") or config.get("feature_extractor_type")
    if name is None:
        # Files of 2021 name no class; without a model beside them, they are CLIP's.
        model_type = read_json(folder / CONFIG).get("model_type") if (folder / CONFIG).exists() else "clip"
        name = f"{CLASS_OF_MODEL.get(str(model_type), model_type)}ImageProcessor"
    return str(name).removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")


def _fields(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `ImagePreprocessing` from settings of the right types. Raises ValueError for others."""
    edge, resized = _side("size", values["size"], "height" if values["default_to_square"] else "shortest_edge")
    size = resized
    if values["do_center_crop"]:
        if values["crop_size"] is None:
            raise ValueError(f"do_center_crop needs a crop_size, for which {name} has no default")
        cropped_edge, size = _side("crop_size", values["crop_size"], "height")
        if cropped_edge != "height":
            raise ValueError(f"crop_size is {values['crop_size']}, expected height and width")
    pad = name == "LlavaImageProcessor" and values["do_pad"]
    if values["do_pad"] and not pad and values["pad_size"] not in (None, size, {"height": size, "width": size}):
        raise ValueError(f"do_pad is true with pad_size {values['pad_size']}, supported is only padding by LLaVA")
    if edge == "shortest_edge" and not (values["do_center_crop"] or pad):
        raise ValueError("size is shortest_edge and do_center_crop is false, which gives images that are not square")
    return {
        "size": size,
        "crop": edge == "shortest_edge",
        "resample": Image.Resampling(values["resample"]),
        "mean": values["image_mean"],
        "std": values["image_std"],
        "resized": None if resized == size else resized,
        "pad": pad,
    }


def _side(key: str, size: int | dict[str, int], edge_of_number: str) -> tuple[str, int]:
    """Return which edge a size states, "shortest_edge" or "height" (and width), and its length in pixels."""
    sides = {edge_of_number: size} if isinstance(size, int) else size
    if len(sides) > 2 or len(set(sides.values())) != 1:
        raise ValueError(f"{key} is {size}, supported are only squares")
    return next(iter(sides.items()))


# ── Types ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parse_size(value: Any) -> int | dict[str, int]:
    """Return a size as one length, as {"shortest_edge": …} or as {"height": …, "width": …}."""
    if isinstance(value, list) and len(value) == 2:
        value = dict(zip(("height", "width"), value, strict=True))
    if isinstance(value, dict):
        value = {key: side for key, side in value.items() if side is not None}
    sides = list(value.values()) if isinstance(value, dict) else [value]
    if any(type(side) is not int or not 1 <= side <= MAX_SIDE for side in sides) or (
        isinstance(value, dict) and set(value) not in ({"shortest_edge"}, {"height", "width"})
    ):
        raise ValueError(f"a length of 1 to {MAX_SIDE:,} pixels, shortest_edge alone, or height and width")
    return dict(sorted(value.items())) if isinstance(value, dict) else value


def _parse_optional_size(value: Any) -> int | dict[str, int] | None:
    return None if value is None else _parse_size(value)


def _parse_flag(value: Any) -> bool:
    if value is not None and not isinstance(value, bool):
        raise ValueError("true, false or null")
    return bool(value)


def _parse_filter(value: Any) -> int:
    if type(value) is not int or value not in list(Image.Resampling):
        raise ValueError(f"the number of one of Pillow's filters, 0 to {max(Image.Resampling)}")
    return value


def _parse_channels(value: Any) -> tuple[float, ...]:
    """Return one number per channel; a single number stands for all three."""
    channels = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    if len(channels) != 3 or not all(type(each) in (int, float) and abs(each) < 1e6 for each in channels):
        raise ValueError("a number, or three for red, green and blue")
    return tuple(map(float, channels))


def _parse_deviations(value: Any) -> tuple[float, ...]:
    channels = _parse_channels(value)
    if min(channels) <= 0:
        raise ValueError("numbers greater than 0")
    return channels


_PARSERS = {
    "size": _parse_size,
    "default_to_square": _parse_flag,
    "do_center_crop": _parse_flag,
    "crop_size": _parse_optional_size,
    "do_pad": _parse_flag,
    "pad_size": _parse_optional_size,
    "resample": _parse_filter,
    "image_mean": _parse_channels,
    "image_std": _parse_deviations,
}


def _is_value(value: Any, supported: bool | float) -> bool:
    if isinstance(supported, bool):
        return value is supported
    return type(value) in (int, float) and supported * (1 - 1e-6) <= value <= supported * (1 + 1e-6)


def _abbreviated(value: Any) -> str:
    return text if len(text := repr(value)) <= 80 else text[:80] + "…"
