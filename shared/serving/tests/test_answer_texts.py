"""Stop texts are found however an answer is cut into tokens; the oldest turns are left out, and no more than needed."""

import random

import pytest

from shared.serving.served_model import Message
from shared.serving.stop_sequences import StopSequences
from shared.serving.truncation import leave_out_oldest


def pieces_of(draw: random.Random, text: str) -> list[str]:
    places = sorted(draw.choices(range(len(text) + 1), k=draw.randrange(8)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_an_answer_ends_before_the_first_stop_text(seed):
    draw = random.Random(seed)
    for _ in range(200):
        text = "".join(draw.choices("ab", k=draw.randrange(20)))
        stops = ["".join(draw.choices("ab", k=draw.randrange(1, 5))) for _ in range(draw.randrange(4))]
        ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
        sequences, sent = StopSequences(stops), ""
        for piece in pieces_of(draw, text):
            sent += sequences.write(piece)
            assert text.startswith(sent)
            if sequences.reached:
                break
        assert sequences.reached == bool(ends)
        assert sent + sequences.close() == (text[: min(ends)[1]] if ends else text)


def test_only_the_beginning_of_a_stop_text_is_held_back():
    sequences = StopSequences(["\n\n", "END"])
    texts = ["one", " E", "N", "x", "\n", "two\n", "\n", "three"]
    assert [sequences.write(text) for text in texts[:7]] == ["one", " ", "", "ENx", "", "\ntwo", ""]
    assert sequences.reached and sequences.close() == ""


def conversation(*roles: str) -> list[Message]:
    return [Message(role, str(number)) for number, role in enumerate(roles)]


@pytest.mark.parametrize("limit", range(9))
def test_as_few_turns_as_possible_are_left_out(limit):
    messages = conversation("system", "user", "assistant", "user", "user", "assistant", "assistant", "user")
    counted = []

    def fits(shorter) -> bool:
        counted.append(len(shorter))
        return len(shorter) <= limit

    texts = "".join(message.text for message in leave_out_oldest(messages, fits))
    expected = {8: "01234567", 7: "034567", 6: "034567", 5: "04567"}
    assert texts == expected.get(limit, "07")  # the system message and the last turn stay, even if they do not fit
    assert len(counted) <= 3


def test_a_single_turn_stays():
    for messages in (conversation("user"), conversation("system", "user"), conversation("assistant", "user")):
        assert leave_out_oldest(messages, lambda _: False)[-1] is messages[-1]
        assert leave_out_oldest(messages, lambda _: True) == messages
