"""What crosses the border between the tests and a student's process: plain values and tensors, as JSON and raw bytes.

A message is two lengths, a JSON text, and the bytes of its tensors one after another. Nothing that is read can run code
or stand for an object: the reader knows six kinds of values, and whatever is not one of them is an error.
"""

import json
import math
import os
import select
import struct
from collections.abc import Callable
from typing import Any

import torch

LENGTHS = struct.Struct(">II")
LARGEST = 32 * 2**20  # bytes of one message; the tests' own tensors are a thousand times smaller

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip


class WireError(Exception):
    """A message that is none: cut short, too large, or of an unknown kind."""


def encode(value: Any) -> bytes:
    """The message that says `value`. Raises TypeError for what is neither a tensor nor a plain value."""
    parts: list[bytes] = []
    text = json.dumps(_plain(value, parts)).encode()
    return LENGTHS.pack(len(text), sum(map(len, parts))) + text + b"".join(parts)


def _plain(value: Any, parts: list[bytes]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        tensor = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
        parts.append(tensor.flatten().view(torch.uint8).numpy().tobytes())
        return {"tensor": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    if isinstance(value, tuple | list):
        return {type(value).__name__ if type(value) in (tuple, list) else "tuple": [_plain(v, parts) for v in value]}
    if isinstance(value, dict):
        return {"dict": [[_plain(k, parts), _plain(v, parts)] for k, v in value.items()]}
    raise TypeError(f"a {type(value).__name__} was given back; tensors, numbers, texts and tuples of them are expected")


def decode(text: bytes, tensors: bytes) -> Any:
    """The value of a message's two parts. Raises WireError for anything that `encode` would not have written."""
    rest = memoryview(tensors)
    try:
        value, rest = _value(json.loads(text), rest)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise WireError(f"a message that can't be read: {type(error).__name__}") from None
    if rest:
        raise WireError(f"{len(rest)} bytes too many")
    return value


def _value(plain: Any, rest: memoryview) -> tuple[Any, memoryview]:
    if not isinstance(plain, dict):
        if isinstance(plain, list):
            raise WireError("a bare list")
        return plain, rest
    if "tensor" in plain:
        return _tensor(DTYPES[plain["tensor"]], plain["shape"], rest)
    ((kind, items),) = plain.items()
    if kind not in ("tuple", "list", "dict") or not isinstance(items, list):
        raise WireError("an unknown kind of value")
    values = []
    for item in items:
        if kind == "dict":
            key, word = item
            (key, rest), (word, rest) = _value(key, rest), _value(word, rest)
            item = (key, word)
        else:
            item, rest = _value(item, rest)
        values.append(item)
    return {"tuple": tuple, "list": list, "dict": dict}[kind](values), rest


def _tensor(dtype: torch.dtype, shape: Any, rest: memoryview) -> tuple[torch.Tensor, memoryview]:
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size <= LARGEST for size in shape):
        raise WireError("a shape that is none")
    size = math.prod(shape) * dtype.itemsize
    if len(shape) > 16 or size > len(rest):
        raise WireError("a tensor larger than its bytes")
    if not size:
        return torch.empty(shape, dtype=dtype), rest
    mine = bytearray(rest[:size])
    if dtype == torch.bool and max(mine) > 1:
        raise WireError("a truth that is neither 0 nor 1")
    return torch.frombuffer(mine, dtype=dtype).reshape(shape), rest[size:]


def send(descriptor: int, message: bytes, left: Callable[[], float] | None = None) -> None:
    """Write a message that `encode` has made, whole. `left` says how many seconds there still are for it.

    Raises TimeoutError when there are none, for which the descriptor must not block.
    """
    rest = memoryview(message)
    while rest:
        _wait(left, [], [descriptor])
        rest = rest[os.write(descriptor, rest) :]


def receive(descriptor: int, left: Callable[[], float] | None = None) -> Any:
    """Read one message. Raises WireError for one that is none, EOFError when nobody writes any more, TimeoutError."""
    text_size, tensor_size = LENGTHS.unpack(_read(descriptor, LENGTHS.size, left))
    if text_size + tensor_size > LARGEST:
        raise WireError(f"a message of {text_size + tensor_size:,} bytes; at most {LARGEST:,} are read")
    return decode(_read(descriptor, text_size, left), _read(descriptor, tensor_size, left))


def _read(descriptor: int, size: int, left: Callable[[], float] | None) -> bytes:
    found = bytearray()
    while len(found) < size:
        _wait(left, [descriptor], [])
        part = os.read(descriptor, min(size - len(found), 2**20))
        if not part:
            raise EOFError
        found += part
    return bytes(found)


def _wait(left: Callable[[], float] | None, reading: list[int], writing: list[int]) -> None:
    if left is None:
        return
    while not any(select.select(reading, writing, [], max(left(), 0))):
        # Asked again: time in which the other side could not work is given back to it.
        if left() <= 0:
            raise TimeoutError
