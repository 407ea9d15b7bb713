"""JSON of other programs: whatever is wrong with it is a ValueError, and nothing in it breaks the error's own text."""

from dataclasses import dataclass
from typing import Literal

import pytest

from shared import typed_json
from shared.file_names import file_name_error, leaves_folder
from shared.json_text import RepeatedKeys, has_lone_surrogate, parse_json, shorten

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("{", "Expecting"),
        ("1" * 5000, "digits"),
        (b"\xff\xfe\xff", "decode"),
    ],
)
def test_every_fault_is_a_value_error(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_keys_that_are_given_twice_are_remembered_with_the_last_value():
    content = parse_json('[{"a": 1, "b": 2, "a": 3}, {"a": 1}]')
    assert content == [{"a": 3, "b": 2}, {"a": 1}]
    assert isinstance(content[0], RepeatedKeys) and content[0].repeated == ("a",)
    assert type(content[1]) is dict


def test_a_value_is_described_on_one_short_printable_line():
    nested: list = []
    for _ in range(5000):
        nested = [nested]
    for value in (nested, "x" * 10_000, ["\ud800\n"] * 3, {"a": {"b": nested}}):
        assert len(shorten(value)) <= 60 and shorten(value).isprintable()
        shorten(value).encode()
    assert shorten({"from": "human", "value": 3}) == "{'from': 'human', 'value': 3}"


def test_halves_of_utf_16_pairs_are_recognized():
    assert has_lone_surrogate("a\ud83d") and has_lone_surrogate("\udc00b")
    assert not has_lone_surrogate("a 😀 é")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 300, "a name of 300 bytes; file systems allow 255"),
        ("folder/" + "ü" * 128, "a name of 256 bytes"),
        ("\ud800.png", "characters that no file name can have"),
        ("a\0.png", "characters that no file name can have"),
        ("", "''; expected a file's name"),
        (3, "3; expected a file's name"),
        (None, "None; expected"),
    ],
)
def test_names_that_no_file_can_have_are_refused(name, message):
    error = file_name_error(name)
    assert message in error and error.isprintable() and len(error) < 140


def test_good_names_are_accepted_and_names_outside_of_the_folder_recognized():
    for name in ("a.png", "images/a b.png", "ü" * 127, "..a.png", "a/../b.png", "./a.png"):
        assert file_name_error(name) is None and not leaves_folder(name), name
    for name in ("/etc/passwd", "../a.png", "a/../../b.png", ".."):
        assert file_name_error(name) is None and leaves_folder(name), name


@dataclass(frozen=True)
class Settings:
    """A number, a text, and a choice or nothing."""

    number: float
    text: str = ""
    choice: Literal["a", "b"] | None = None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"number": 1' + "0" * 400 + "}", "number: 1000.*expected a number"),
        ('{"number": NaN}', "number: NaN; expected a number"),
        ('{"number": 1, "text": "\\ud800"}', r'text: "\\ud800"; expected a text'),
        ('{"number": 1, "\\ud800": 2}', r'"\\ud800": no such key'),
        ('{"number": 1, "choice": "c"}', 'choice: "c"; expected one of "a", "b"'),
        ('{"number": 1, "number": 2}', "number: given twice"),
        ('{"number": ' + DEEP + "}", "nested too deeply"),
        ('{"number": ' + "[" * 900 + "]" * 900 + "}", "number: |nested too deeply"),
    ],
)
def test_typed_json_refuses_what_a_dataclass_cannot_hold(text, message):
    with pytest.raises(ValueError, match=message) as error:
        typed_json.parse(Settings, text)
    str(error.value).encode()


def test_typed_json_reads_a_choice_or_nothing():
    assert typed_json.parse(Settings, '{"number": 1, "choice": "b"}') == Settings(1, choice="b")
    assert typed_json.parse(Settings, typed_json.to_json(Settings(0.5))) == Settings(0.5)
