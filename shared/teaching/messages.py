"""The message format between the tests and a student's process: plain values and tensors, as JSON and raw bytes.

A message is two lengths, a JSON text, and the bytes of its tensors in order. Decoding never runs code and never creates
objects of other types: the decoder accepts six kinds of values, and everything else is an error.
"""

import json
import math
import os
import select
import struct
from collections.abc import Callable
from typing import Any

import torch

HEADER = struct.Struct(">II")
"""Length of the JSON text and of the tensors' bytes."""
MAX_TEXT_SIZE = 2**18  # bytes of the JSON text, whose decoded values take a hundred times as much memory
MAX_TENSOR_SIZE = 4 * 2**20  # bytes of the tensors; those of the lessons' own tests are far smaller
MAX_ENTRIES = 1000  # of one dict: many keys with the same hash take quadratic time
MAX_DIMENSIONS = 16

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.complex64,
        torch.complex128,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
}


class MessageError(Exception):
    """A message that is incomplete, too large, or of an unknown kind."""


def encode(value: Any) -> bytes:
    """Return the message for a value. Raises TypeError for what is neither a tensor nor a plain value."""
    parts: list[bytes] = []
    text = json.dumps(_to_json(value, parts)).encode()
    return HEADER.pack(len(text), sum(map(len, parts))) + text + b"".join(parts)


def _to_json(value: Any, parts: list[bytes]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        tensor = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
        parts.append(tensor.flatten().view(torch.uint8).numpy().tobytes())
        return {"tensor": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    if isinstance(value, tuple | list):
        kind = type(value).__name__ if type(value) in (tuple, list) else "tuple"
        return {kind: [_to_json(item, parts) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_to_json(key, parts), _to_json(item, parts)] for key, item in value.items()]}
    raise TypeError(f"a {type(value).__name__} was returned; expected tensors, numbers, texts and tuples of them")


def decode(text: bytes, tensors: bytes) -> Any:
    """Return the value of a message's two parts. Raises MessageError for anything that `encode` cannot have written."""
    remaining = memoryview(tensors)
    try:
        value, remaining = _from_json(json.loads(text), remaining)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise MessageError(f"a message that cannot be decoded: {type(error).__name__}") from None
    if remaining:
        raise MessageError(f"a message with {len(remaining)} bytes too many")
    return value


def _from_json(value: Any, remaining: memoryview) -> tuple[Any, memoryview]:
    """Return a value, and the tensor bytes that it leaves."""
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise MessageError("a bare list")
        return value, remaining
    if "tensor" in value:
        return _read_tensor(DTYPES[value["tensor"]], value["shape"], remaining)
    ((kind, items),) = value.items()
    if kind not in ("tuple", "list", "dict") or not isinstance(items, list):
        raise MessageError("an unknown kind of value")
    if kind == "dict" and len(items) > MAX_ENTRIES:
        raise MessageError(f"a dict of {len(items):,} entries; at most {MAX_ENTRIES:,} are read")
    values: list[Any] = []
    for item in items:
        if kind == "dict":
            key, entry = item
            (key, remaining), (entry, remaining) = _from_json(key, remaining), _from_json(entry, remaining)
            values.append((key, entry))
        else:
            item, remaining = _from_json(item, remaining)
            values.append(item)
    if kind == "dict":
        return dict(values), remaining
    return (tuple(values) if kind == "tuple" else values), remaining


def _read_tensor(dtype: torch.dtype, shape: Any, remaining: memoryview) -> tuple[torch.Tensor, memoryview]:
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size <= MAX_TENSOR_SIZE for size in shape):
        raise MessageError("an invalid shape")
    size = math.prod(shape) * dtype.itemsize
    if len(shape) > MAX_DIMENSIONS or size > len(remaining):
        raise MessageError("a tensor larger than its bytes")
    if not size:
        return torch.empty(shape, dtype=dtype), remaining
    data = bytearray(remaining[:size])
    if dtype == torch.bool and max(data) > 1:
        raise MessageError("a boolean that is neither 0 nor 1")
    return torch.frombuffer(data, dtype=dtype).reshape(shape), remaining[size:]


def send(descriptor: int, message: bytes, seconds_left: Callable[[], float] | None = None) -> None:
    """Write a message that `encode` made. `seconds_left` returns how many seconds remain for it.

    Raises TimeoutError when none remain; for this the descriptor must not block.
    """
    remaining = memoryview(message)
    while remaining:
        _wait(seconds_left, [], [descriptor])
        remaining = remaining[os.write(descriptor, remaining) :]


def receive(descriptor: int, seconds_left: Callable[[], float] | None = None) -> Any:
    """Read one message. Raises MessageError for an invalid one, EOFError when the writer is gone, TimeoutError."""
    text_size, tensor_size = HEADER.unpack(_read(descriptor, HEADER.size, seconds_left))
    for kind, size, most in (("text", text_size, MAX_TEXT_SIZE), ("tensors", tensor_size, MAX_TENSOR_SIZE)):
        if size > most:
            raise MessageError(f"an answer with {size:,} bytes of {kind}; at most {most:,} are read")
    return decode(_read(descriptor, text_size, seconds_left), _read(descriptor, tensor_size, seconds_left))


def _read(descriptor: int, size: int, seconds_left: Callable[[], float] | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        _wait(seconds_left, [descriptor], [])
        part = os.read(descriptor, min(size - len(data), 2**20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _wait(seconds_left: Callable[[], float] | None, reading: list[int], writing: list[int]) -> None:
    if seconds_left is None:
        return
    while not any(select.select(reading, writing, [], max(seconds_left(), 0))):
        # Ask again: time that the other process spent waiting for a core is given back to it.
        if seconds_left() <= 0:
            raise TimeoutError
