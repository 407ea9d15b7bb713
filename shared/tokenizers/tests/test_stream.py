"""Text that comes token by token: never half a character, and in the end the whole."""

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.tokenizers import TextStream, Tokenizer
from shared.tokenizers.tests.examples import FIXED, texts
from shared.tokenizers.tests.oracle import SCRIPTS

tokenizer = Tokenizer.train([SCRIPTS], 361, special_tokens=["<|end|>"])


@settings(max_examples=150, **FIXED)
@given(st.one_of(texts.map(tokenizer.encode), st.lists(st.integers(0, 360), max_size=30)), st.booleans())
def test_pieces_make_the_whole_and_are_its_beginning_at_every_moment(numbers, skip):
    whole = tokenizer.decode(numbers, skip_special_tokens=skip)
    stream, written = TextStream(tokenizer, skip_special_tokens=skip), ""
    for number in numbers:
        written += stream.write(number)
        assert whole.startswith(written)
    assert written + stream.close() == whole


def test_a_character_waits_for_its_last_byte():
    stream = TextStream(tokenizer)
    numbers = tokenizer.encode("𓅃!")
    assert len(numbers) == 5, "the bird is no token of this vocabulary"
    assert [stream.write(number) for number in numbers] == ["", "", "", "𓅃", "!"]


def test_what_was_never_finished_shows_at_the_end_and_is_forgotten():
    stream = TextStream(tokenizer)
    assert [stream.write(number) for number in tokenizer.encode("𓅃")[:2]] == ["", ""]
    assert stream.close() == "�"
    assert stream.write(tokenizer.encode("a")[0]) == "a" and stream.close() == ""


def test_special_tokens_are_shown_only_if_asked_for():
    end = tokenizer.special_tokens["<|end|>"]
    assert TextStream(tokenizer).write(end) == ""
    assert TextStream(tokenizer, skip_special_tokens=False).write(end) == "<|end|>"
