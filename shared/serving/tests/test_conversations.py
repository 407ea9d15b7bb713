"""Conversations are found only by their ids, have one turn at a time, and are removed in time."""

import pytest
from PIL import Image

from shared.serving.conversations import ConversationStore
from shared.serving.errors import ServiceError
from shared.serving.served_model import Message


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_store(clock):
    def make(**limits) -> ConversationStore:
        return ConversationStore(
            **{"max_conversations": 3, "max_bytes": 10_000, "lifetime": 60.0} | limits, clock=clock
        )

    return make


@pytest.fixture
def store(make_store):
    return make_store()


def add_turn(store: ConversationStore, conversation_id: str | None, text: str, *images) -> tuple[str, list[str]]:
    """Add one turn; return the conversation's id and the texts before the turn."""
    with store.turn(conversation_id) as turn:
        turn.add(Message("user", text, images), Message("assistant", text.upper()))
        return turn.conversation_id, [message.text for message in turn.history]


def exists(store: ConversationStore, conversation_id: str) -> bool:
    try:
        with store.turn(conversation_id):
            return True
    except ServiceError as error:
        assert (error.status, error.code) == (404, "unknown_conversation")
        return False


def test_histories_are_separate(store):
    first, _ = add_turn(store, None, "a")
    second, _ = add_turn(store, None, "b")
    # Neither in the order of creation nor in the order of use.
    assert add_turn(store, second, "c") == (second, ["b", "B"])
    assert add_turn(store, second, "d") == (second, ["b", "B", "c", "C"])
    assert add_turn(store, first, "e") == (first, ["a", "A"])
    assert add_turn(store, second, "f")[1] == ["b", "B", "c", "C", "d", "D"]


def test_ids_are_long_and_random_and_cannot_be_chosen(make_store):
    store = make_store(max_conversations=300)
    ids = {add_turn(store, None, "x")[0] for _ in range(200)}
    assert len(ids) == 200 and all(len(each) == 43 for each in ids)  # 256 bits in base64
    for chosen in ("1", "", "x" * 43, next(iter(ids))[:-1]):
        assert not exists(store, chosen)


def test_a_turn_that_raises_or_adds_nothing_changes_nothing(store):
    name, _ = add_turn(store, None, "a")
    for conversation_id in (name, None):
        with pytest.raises(KeyError), store.turn(conversation_id) as turn:
            turn.add(Message("user", "lost"))
            raise KeyError
    with store.turn(None):
        pass
    assert len(store) == 1 and add_turn(store, name, "b")[1] == ["a", "A"]


def test_one_turn_at_a_time(store):
    name, _ = add_turn(store, None, "a")
    with store.turn(name), pytest.raises(ServiceError) as caught, store.turn(name):
        pass
    assert (caught.value.status, caught.value.code) == (409, "conversation_busy")
    assert exists(store, name)


def test_the_least_recently_used_conversation_is_removed_first(store):
    a, b, c = (add_turn(store, None, text)[0] for text in "abc")
    add_turn(store, a, "again")
    d, _ = add_turn(store, None, "d")
    assert [exists(store, name) for name in (a, b, c, d)] == [True, False, True, True]


def test_bytes_are_limited(make_store):
    store = make_store(max_conversations=1000)
    for number in range(50):
        add_turn(store, None, "x", Image.new("RGB", (20 + number % 7, 20)))
        assert store.bytes <= 10_000
    assert 4 <= len(store) <= 8
    # A conversation larger than the limit is not stored, and its bytes are not counted.
    add_turn(store, None, "y" * 3000)
    assert len(store) == 0 and store.bytes == 0


def test_bytes_are_counted_once(make_store, clock):
    store = make_store(max_bytes=10**9)
    name, _ = add_turn(store, None, "ab", Image.new("RGB", (10, 5)))
    add_turn(store, name, "c")
    other, _ = add_turn(store, None, "d")
    assert store.bytes == 4 * 4 + 150 + 4 * 2 + 4 * 2
    clock.now = 61.0
    store.remove_expired()
    assert store.bytes == 0 and not exists(store, name) and not exists(store, other)


def test_unused_conversations_expire(store, clock):
    name, _ = add_turn(store, None, "a")
    clock.now = 59.0
    add_turn(store, name, "b")
    clock.now = 118.0
    assert exists(store, name)
    clock.now = 119.0
    assert not exists(store, name) and len(store) == 0


def test_a_conversation_removed_during_its_turn_is_stored_again_at_its_end(make_store):
    store = make_store(max_conversations=1)
    name, _ = add_turn(store, None, "a")
    with store.turn(name) as turn:
        add_turn(store, None, "other")
        assert len(store) == 1
        turn.add(Message("user", "b"))
    assert add_turn(store, name, "c")[1] == ["a", "A", "b"]
    assert len(store) == 1
