"""Test that messages round-trip, and that everything else is rejected."""

import json
import math
import os
import pickle
import threading

import pytest
import torch

from shared.teaching import messages
from shared.teaching.messages import HEADER, MessageError, decode, encode


def round_trip(value):
    message = encode(value)
    size, _ = HEADER.unpack(message[: HEADER.size])
    rest = message[HEADER.size :]
    return decode(rest[:size], rest[size:])


@pytest.mark.parametrize("name", messages.DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_tensors_of_every_dtype(name, shape):
    dtype = messages.DTYPES[name]
    tensor = (torch.randn(shape, dtype=torch.complex128 if dtype.is_complex else torch.float64) * 3).to(dtype)
    result = round_trip(tensor)
    assert result.dtype == dtype and result.shape == shape and torch.equal(result, tensor)


def test_views_and_special_values():
    tensor = torch.tensor([[1.0, math.nan], [math.inf, -0.0]], requires_grad=True)
    assert torch.equal(round_trip(tensor.T).nan_to_num(7), tensor.detach().T.nan_to_num(7))
    assert torch.equal(round_trip(torch.randn(4, 1).expand(4, 3)).std(1), torch.zeros(4))
    assert math.isnan(round_trip(math.nan)) and round_trip(-math.inf) == -math.inf


@pytest.mark.parametrize(
    "value", [None, True, 0, -(2**70), 0.1, "ß\n", (), (1, [2, (3,)]), {"a": {1: (None,)}}, {"tensor": [1], "tuple": 2}]
)
def test_plain_values(value):
    result = round_trip(value)
    assert result == value and type(result) is type(value)


def test_tensors_within_values_keep_their_order():
    first, second = torch.arange(3), torch.ones(2, dtype=torch.bool)
    result = round_trip(({"b": second, "a": first}, [first]))
    assert (
        torch.equal(result[0]["a"], first) and torch.equal(result[0]["b"], second) and torch.equal(result[1][0], first)
    )


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", lambda: 0, torch.nn.Linear(1, 1), [1, object()]])
def test_objects_are_rejected(value):
    with pytest.raises(TypeError, match="tensors, numbers, texts"):
        encode(value)


@pytest.mark.parametrize(
    ("plain", "data"),
    [
        ([1, 2], b""),
        ({"object": []}, b""),
        ({"tuple": 3}, b""),
        ({"tuple": [], "list": []}, b""),
        ({"dict": [[1]]}, b""),
        ({"dict": [[{"list": []}, 1]]}, b""),
        ({"tensor": "float32", "shape": [2]}, bytes(7)),
        ({"tensor": "float32", "shape": [1]}, bytes(8)),
        ({"tensor": "float32", "shape": [-1]}, bytes(4)),
        ({"tensor": "float32", "shape": [2**62, 0]}, b""),
        ({"tensor": "float32", "shape": [True]}, bytes(4)),
        ({"tensor": "float32", "shape": [1] * 17}, bytes(4)),
        ({"tensor": "float32", "shape": "1"}, bytes(4)),
        ({"tensor": "object", "shape": [1]}, bytes(8)),
        ({"tensor": "bool", "shape": [1]}, b"\x02"),
    ],
)
def test_invalid_values_are_rejected(plain, data):
    with pytest.raises(MessageError):
        decode(json.dumps(plain).encode(), data)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 10_000, pickle.dumps({"result": 1})])
def test_invalid_json_is_rejected(text):
    with pytest.raises(MessageError):
        decode(text, b"")


def test_receive_ends():
    reader, writer = os.pipe()
    with pytest.raises(TimeoutError):
        messages.receive(reader, lambda: -1)
    os.write(writer, HEADER.pack(2**31, 2**31))
    with pytest.raises(MessageError, match="at most"):
        messages.receive(reader, lambda: 60)
    os.write(writer, HEADER.pack(5, 0) + b"nu")
    os.close(writer)
    with pytest.raises(EOFError):
        messages.receive(reader, lambda: 60)
    os.close(reader)


def test_message_larger_than_a_pipe():
    reader, writer = os.pipe()
    tensor = torch.randn(300_000)
    sending = threading.Thread(target=messages.send, args=(writer, encode(tensor)))
    sending.start()
    assert torch.equal(messages.receive(reader, lambda: 60), tensor)
    sending.join()
    os.close(reader)
    os.close(writer)


def test_send_without_a_reader_ends():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(TimeoutError):
        messages.send(writer, encode(torch.zeros(10**6)), lambda: -1)
    os.close(reader)
    os.close(writer)


def test_extended_time_is_waited_for():
    """When the remaining time is 0 once and more afterwards, the message is still read."""
    reader, writer = os.pipe()
    answers = iter([0, 1])

    def seconds_left():
        seconds = next(answers, 60)
        if seconds == 1:
            os.write(writer, encode(7))
        return seconds

    assert messages.receive(reader, seconds_left) == 7
    os.close(reader)
    os.close(writer)
