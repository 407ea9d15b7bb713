"""What crosses the border comes out as it went in, and nothing else comes out at all."""

import json
import math
import os
import pickle
import threading

import pytest
import torch

from shared.teaching import messages as wire
from shared.teaching.messages import LENGTHS, WireError, decode, encode


def across(value):
    message = encode(value)
    size, _ = LENGTHS.unpack(message[: LENGTHS.size])
    rest = message[LENGTHS.size :]
    return decode(rest[:size], rest[size:])


@pytest.mark.parametrize("name", wire.DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_a_tensor_of_every_kind(name, shape):
    dtype = wire.DTYPES[name]
    tensor = (torch.randn(shape, dtype=torch.complex128 if dtype.is_complex else torch.float64) * 3).to(dtype)
    found = across(tensor)
    assert found.dtype == dtype and found.shape == shape and torch.equal(found, tensor)


def test_views_and_what_is_no_number():
    tensor = torch.tensor([[1.0, math.nan], [math.inf, -0.0]], requires_grad=True)
    assert torch.equal(across(tensor.T).nan_to_num(7), tensor.detach().T.nan_to_num(7))
    assert torch.equal(across(torch.randn(4, 1).expand(4, 3)).std(1), torch.zeros(4))
    assert math.isnan(across(math.nan)) and across(-math.inf) == -math.inf


@pytest.mark.parametrize(
    "value", [None, True, 0, -(2**70), 0.1, "ß\n", (), (1, [2, (3,)]), {"a": {1: (None,)}}, {"tensor": [1], "tuple": 2}]
)
def test_plain_values(value):
    found = across(value)
    assert found == value and type(found) is type(value)


def test_tensors_among_values_keep_their_order():
    first, second = torch.arange(3), torch.ones(2, dtype=torch.bool)
    found = across(({"b": second, "a": first}, [first]))
    assert torch.equal(found[0]["a"], first) and torch.equal(found[0]["b"], second) and torch.equal(found[1][0], first)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", lambda: 0, torch.nn.Linear(1, 1), [1, object()]])
def test_objects_stay_where_they_are(value):
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
def test_what_nobody_would_write_is_refused(plain, data):
    with pytest.raises(WireError):
        decode(json.dumps(plain).encode(), data)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 10_000, pickle.dumps({"result": 1})])
def test_what_is_no_message_is_refused(text):
    with pytest.raises(WireError):
        decode(text, b"")


def test_reading_has_an_end():
    reader, writer = os.pipe()
    with pytest.raises(TimeoutError):
        wire.receive(reader, lambda: -1)
    os.write(writer, LENGTHS.pack(2**31, 2**31))
    with pytest.raises(WireError, match="at most"):
        wire.receive(reader, lambda: 60)
    os.write(writer, LENGTHS.pack(5, 0) + b"nu")
    os.close(writer)
    with pytest.raises(EOFError):
        wire.receive(reader, lambda: 60)
    os.close(reader)


def test_a_message_larger_than_a_pipe():
    reader, writer = os.pipe()
    tensor = torch.randn(300_000)
    sending = threading.Thread(target=wire.send, args=(writer, encode(tensor)))
    sending.start()
    assert torch.equal(wire.receive(reader, lambda: 60), tensor)
    sending.join()
    os.close(reader)
    os.close(writer)


def test_writing_to_nobody_has_an_end():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(TimeoutError):
        wire.send(writer, encode(torch.zeros(10**6)), lambda: -1)
    os.close(reader)
    os.close(writer)


def test_time_given_back_is_waited_for():
    """What says “no time left” once and then more is asked again, and the message is read after all."""
    reader, writer = os.pipe()
    answers = iter([0, 1])

    def left():
        seconds = next(answers, 60)
        if seconds == 1:
            os.write(writer, encode(7))
        return seconds

    assert wire.receive(reader, left) == 7
    os.close(reader)
    os.close(writer)
