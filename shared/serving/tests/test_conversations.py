"""Conversations are found by their names alone, one turn at a time, and forgotten in time."""

import pytest
from PIL import Image

from shared.serving.conversations import Conversations
from shared.serving.problems import Problem
from shared.serving.served_model import Message


def conversations(**limits) -> Conversations:
    clock = [0.0]
    made = Conversations(
        **{"most": 3, "most_bytes": 10_000, "seconds": 60.0} | limits,
        clock=lambda: clock[0],
    )
    made.now = clock
    return made


def say(to: Conversations, name: str | None, text: str, *images) -> tuple[str, list[str]]:
    """One turn; what was said before it."""
    with to.turn(name) as (name, turn):
        turn.keep(Message("user", text, images), Message("assistant", text.upper()))
        return name, [message.text for message in turn.history]


def known(to: Conversations, name: str) -> bool:
    try:
        with to.turn(name):
            return True
    except Problem as problem:
        assert (problem.status, problem.code) == (404, "unknown_conversation")
        return False


def test_each_history_is_its_own():
    to = conversations()
    first, _ = say(to, None, "a")
    second, _ = say(to, None, "b")
    # Neither in the order in which they began, nor in the order in which they were used.
    assert say(to, second, "c") == (second, ["b", "B"])
    assert say(to, second, "d") == (second, ["b", "B", "c", "C"])
    assert say(to, first, "e") == (first, ["a", "A"])
    assert say(to, second, "f")[1] == ["b", "B", "c", "C", "d", "D"]


def test_names_are_long_random_and_never_chosen():
    to = conversations(most=300)
    names = {say(to, None, "x")[0] for _ in range(200)}
    assert len(names) == 200 and all(len(name) == 43 for name in names)  # 256 bits in base64
    for name in ("1", "", "x" * 43, next(iter(names))[:-1]):
        assert not known(to, name)


def test_a_turn_that_raises_or_keeps_nothing_is_no_turn():
    to = conversations()
    name, _ = say(to, None, "a")
    for asked in (name, None):
        with pytest.raises(KeyError), to.turn(asked) as (_, turn):
            turn.keep(Message("user", "lost"))
            raise KeyError
    with to.turn(None):
        pass
    assert len(to) == 1 and say(to, name, "b")[1] == ["a", "A"]


def test_one_turn_at_a_time():
    to = conversations()
    name, _ = say(to, None, "a")
    with to.turn(name), pytest.raises(Problem) as caught, to.turn(name):
        pass
    assert (caught.value.status, caught.value.code) == (409, "conversation_busy")
    assert known(to, name)


def test_the_one_not_used_for_longest_is_forgotten_first():
    to = conversations()
    a, b, c = (say(to, None, text)[0] for text in "abc")
    say(to, a, "again")
    d, _ = say(to, None, "d")
    assert [known(to, name) for name in (a, b, c, d)] == [True, False, True, True]


def test_bytes_are_bounded():
    to = conversations(most=1000)
    for number in range(50):
        say(to, None, "x", Image.new("RGB", (20 + number % 7, 20)))
        assert to.bytes <= 10_000
    assert 4 <= len(to) <= 8
    # One that is larger than all the room does not stay, and its bytes do not either.
    say(to, None, "y" * 3000)
    assert len(to) == 0 and to.bytes == 0


def test_bytes_are_counted_once():
    to = conversations(most_bytes=10**9)
    name, _ = say(to, None, "ab", Image.new("RGB", (10, 5)))
    say(to, name, "c")
    other, _ = say(to, None, "d")
    assert to.bytes == 4 * 4 + 150 + 4 * 2 + 4 * 2
    to.now[0] = 61.0
    to.forget_old()
    assert to.bytes == 0 and not known(to, name) and not known(to, other)


def test_what_is_not_used_is_forgotten():
    to = conversations()
    name, _ = say(to, None, "a")
    to.now[0] = 59.0
    say(to, name, "b")
    to.now[0] = 118.0
    assert known(to, name)
    to.now[0] = 119.0
    assert not known(to, name) and len(to) == 0


def test_a_conversation_forgotten_during_its_turn_comes_back_with_it():
    to = conversations(most=1)
    name, _ = say(to, None, "a")
    with to.turn(name) as (_, turn):
        say(to, None, "other")
        assert len(to) == 1
        turn.keep(Message("user", "b"))
    assert say(to, name, "c")[1] == ["a", "A", "b"]
    assert len(to) == 1
