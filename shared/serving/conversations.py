"""What was said before, found by a name that only who was told it can know.

A conversation's name is 256 random bits: nobody guesses it, and nobody chooses it, so that two strangers cannot meet
in one by both calling theirs "1". Memory is bounded three ways: by number, by bytes, by time.
"""

import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from shared.serving.problems import Problem
from shared.serving.served_model import Message


@dataclass
class _Conversation:
    history: tuple[Message, ...] = ()
    bytes: int = 0
    last_used: float = 0.0
    busy: bool = False


@dataclass
class Turn:
    """One turn under way: what was said before it, and what it adds when it succeeds."""

    history: tuple[Message, ...]
    added: tuple[Message, ...] = field(default=())

    def keep(self, *messages: Message) -> None:
        self.added = messages


class Conversations:
    """Histories by their names. To be used from one thread, as an event loop does.

    most, most_bytes  the ones not used for longest are forgotten beyond these
    seconds           one that isn't used for so long is forgotten
    clock             seconds that never run backwards
    """

    def __init__(self, *, most: int, most_bytes: int, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.most, self.most_bytes, self.seconds, self.clock = most, most_bytes, seconds, clock
        self.bytes = 0
        self._by_name: OrderedDict[str, _Conversation] = OrderedDict()  # the one used last is last

    def __len__(self) -> int:
        return len(self._by_name)

    @contextlib.contextmanager
    def turn(self, name: str | None) -> Iterator[tuple[str, Turn]]:
        """Take the next turn of a conversation, or the first of a new one; give its name and the turn.

        What the turn keeps becomes history when the block ends without an exception; otherwise nothing has happened,
        and a new conversation has never been.

        Raises Problem unknown_conversation (never begun, or forgotten: which, is nobody's business) and
        conversation_busy: an answer that does not know what was asked meanwhile would make no sense.
        """
        self.forget_old()
        if name is None:
            name, conversation = secrets.token_urlsafe(32), _Conversation()
        elif name in self._by_name:
            conversation = self._by_name[name]
        else:
            raise Problem(
                "unknown_conversation",
                "no such conversation, or it was forgotten; begin a new one by leaving conversation_id out",
                param="conversation_id",
            )
        if conversation.busy:
            raise Problem(
                "conversation_busy",
                "this conversation's last question is still being answered; wait for it",
                param="conversation_id",
            )
        conversation.busy = True
        turn = Turn(conversation.history)
        try:
            yield name, turn
            if turn.added:
                self._keep(name, conversation, turn.added)
        finally:
            conversation.busy = False

    def _keep(self, name: str, conversation: _Conversation, added: tuple[Message, ...]) -> None:
        self._drop(name)
        conversation.history += added
        conversation.bytes += sum(map(_size, added))
        conversation.last_used = self.clock()
        self._by_name[name] = conversation
        self.bytes += conversation.bytes
        while len(self._by_name) > self.most or self.bytes > self.most_bytes:
            self._drop(next(iter(self._by_name)))

    def forget_old(self) -> None:
        """Forget what has not been used for too long; each turn does this first."""
        now = self.clock()
        while self._by_name:
            name, oldest = next(iter(self._by_name.items()))
            if now - oldest.last_used < self.seconds:
                break
            self._drop(name)

    def _drop(self, name: str) -> None:
        # One that is being answered may be dropped too: its turn holds its history, and puts it back when it ends.
        dropped = self._by_name.pop(name, None)
        self.bytes -= dropped.bytes if dropped else 0


def _size(message: Message) -> int:
    # Python keeps up to four bytes a character; a picture is three bytes a pixel.
    return 4 * len(message.text) + sum(3 * image.width * image.height for image in message.images)
