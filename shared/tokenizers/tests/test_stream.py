"""Test that streaming never returns an incomplete character and returns the full text in the end."""

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.tokenizers import TextStream, Tokenizer
from shared.tokenizers.tests.examples import FIXED, texts
from shared.tokenizers.tests.oracle import SCRIPTS

tokenizer = Tokenizer.train([SCRIPTS], 361, special_tokens=["<|end|>"])


@settings(max_examples=150, **FIXED)
@given(st.one_of(texts.map(tokenizer.encode), st.lists(st.integers(0, 360), max_size=30)), st.booleans())
def test_pieces_are_always_a_prefix_of_the_full_text(numbers, skip):
    full_text = tokenizer.decode(numbers, skip_special_tokens=skip)
    stream, written = TextStream(tokenizer, skip_special_tokens=skip), ""
    for number in numbers:
        written += stream.write(number)
        assert full_text.startswith(written)
    assert written + stream.close() == full_text


def test_character_is_returned_with_its_last_byte():
    stream = TextStream(tokenizer)
    numbers = tokenizer.encode("𓅃!")
    assert len(numbers) == 5, "the bird is no token of this vocabulary"
    assert [stream.write(number) for number in numbers] == ["", "", "", "𓅃", "!"]


def test_close_returns_incomplete_characters_and_resets():
    stream = TextStream(tokenizer)
    assert [stream.write(number) for number in tokenizer.encode("𓅃")[:2]] == ["", ""]
    assert stream.close() == "�"
    assert stream.write(tokenizer.encode("a")[0]) == "a" and stream.close() == ""


def test_special_tokens_are_skipped_by_default():
    end = tokenizer.special_tokens["<|end|>"]
    assert TextStream(tokenizer).write(end) == ""
    assert TextStream(tokenizer, skip_special_tokens=False).write(end) == "<|end|>"
