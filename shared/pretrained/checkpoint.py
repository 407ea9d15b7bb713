"""Read a published folder: its settings, and its weights one by one, without unpickling anything."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from shared.errors import CourseError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
# Formats that are or contain Python pickles: opening one runs any program that its author put inside.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.bin.index.json")


def read_json(file: Path, contents: str = f"a model folder contains {CONFIG} and {WEIGHTS}") -> dict[str, Any]:
    """Return the JSON object in a file of a published folder; `contents` tells what such a folder contains.

    Raises CourseError when the file is missing, is not JSON, or contains another type than an object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(f"{file} does not exist; {contents}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CourseError(f"{file} cannot be read as JSON ({error}); download or save it again") from error
    if not isinstance(content, dict):
        raise CourseError(f"{file} contains a JSON {type(content).__name__}, expected an object of settings")
    return content


def read_config(folder: Path | str, *model_types: str) -> dict[str, Any]:
    """Return the settings in a folder's `config.json`, which must be of one of the types of models, if any are given.

    Raises CourseError when it is missing or no JSON object, and for another type of model.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CourseError(f"{folder} is not a folder; expected one with {CONFIG} and {WEIGHTS}")
    config = read_json(folder / CONFIG)
    if model_types:
        require_model_type(config, folder, *model_types)
    return config


def require_model_type(config: Mapping[str, Any], folder: Path | str, *model_types: str) -> None:
    """Raise CourseError unless a config, or a part of one, is of one of the types of models."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in model_types:
        raise CourseError(f"{folder} holds a model of type {model_type!r}; expected {' or '.join(model_types)}")


def _equal_bytes(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are stored alike, NaN included."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))


class Checkpoint:
    """The weights of a folder under their published names, in one file or in shards with an index.

    Opening reads the headers only: `shapes` and `dtypes` describe every tensor, and `checkpoint[name]` reads one.
    Use it as a context manager.

    Raises CourseError for a folder without safetensors, for a missing shard, for a truncated or corrupt file, and for
    shards that hold different values of one tensor.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self._files: dict[str, Any] = {}  # published name → the open file that contains it
        self._shard_names: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}  # "F32", "BF16", "I64", …
        for file in self._find_files():
            self._open(file)

    def _find_files(self) -> list[Path]:
        if (self.folder / WEIGHTS).is_file():
            return [self.folder / WEIGHTS]
        if (self.folder / INDEX).is_file():
            return self._shards()
        pickles = sorted({file.name for pattern in PICKLES for file in self.folder.glob(pattern)})
        if pickles:
            raise CourseError(
                f"{self.folder} has no {WEIGHTS}, only {', '.join(pickles)}: a Python pickle, which can run any "
                f"program when it is opened and is never opened here. Use the {WEIGHTS} of the same model, or, "
                "if you trust the file, convert it once with transformers: "
                f"AutoModel.from_pretrained({str(self.folder)!r}).save_pretrained(new_folder)"
            )
        raise CourseError(f"{self.folder} contains no weights; expected {WEIGHTS} or {INDEX}")

    def _shards(self) -> list[Path]:
        weight_map = read_json(self.folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CourseError(f"{self.folder / INDEX} has no weight_map from names to files; download it again")
        shards = sorted(set(map(str, weight_map.values())))
        outside = [shard for shard in shards if Path(shard).name != shard]
        if outside:
            raise CourseError(f"{self.folder / INDEX} names files outside its folder ({', '.join(outside)}); refused")
        missing = [shard for shard in shards if not (self.folder / shard).is_file()]
        if missing:
            raise CourseError(f"{self.folder} lacks {', '.join(missing)} of its {len(shards)} shards; download them")
        return [self.folder / shard for shard in shards]

    def _open(self, file: Path) -> None:
        try:
            opened = safe_open(file, framework="pt").__enter__()
            for name in opened.keys():  # noqa: SIM118  (not a mapping: it has only this method)
                if name in self._files:
                    self._refuse_another_value(name, opened.get_tensor(name), file)
                    continue
                tensor = opened.get_slice(name)
                self._shard_names[name] = file.name
                self._files[name], self.shapes[name] = opened, tuple(tensor.get_shape())
                self.dtypes[name] = tensor.get_dtype()
        except (SafetensorError, OSError) as error:
            raise CourseError(
                f"{file} is not a complete safetensors file ({error}): {file.stat().st_size:,} bytes, "
                "truncated or corrupt; download or save it again"
            ) from error

    def _refuse_another_value(self, name: str, tensor: Tensor, file: Path) -> None:
        if not _equal_bytes(self[name], tensor):
            raise CourseError(
                f"{self._shard_names[name]} and {file.name} in {self.folder} hold different values of {name}: they "
                "belong to different models or versions; download all shards of one model again"
            )

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *exception: object) -> None:
        for file in {id(file): file for file in self._files.values()}.values():
            file.__exit__(None, None, None)
        self._files.clear()
