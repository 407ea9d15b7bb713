"""Storage of conversations between requests.

A conversation's id is 256 random bits of the service. Clients can neither guess nor choose one, so two clients never
share a conversation by accident. Memory is limited by number, bytes and time.
"""

import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shared.serving.errors import ServiceError
from shared.serving.served_model import Message


@dataclass
class _Conversation:
    history: tuple[Message, ...] = ()
    bytes: int = 0
    last_used: float = 0.0
    busy: bool = False


@dataclass
class ConversationTurn:
    """One turn in progress: the messages before it, and the messages that it adds when it succeeds.

    dropped  number of messages at the beginning that were left out, and are no longer stored
    """

    conversation_id: str
    history: tuple[Message, ...]
    new_messages: tuple[Message, ...] = ()
    dropped: int = 0

    def add(self, *messages: Message, dropped: int = 0) -> None:
        """Set the messages to store at the end of the turn, and how many of the oldest to remove."""
        self.new_messages, self.dropped = messages, dropped


class ConversationStore:
    """Store histories by id. Use it from one thread only, such as an event loop.

    max_conversations, max_bytes  beyond these the least recently used conversation is removed
    lifetime                      seconds without use after which a conversation is removed
    clock                         a monotonic clock, in seconds
    """

    def __init__(
        self,
        *,
        max_conversations: int,
        max_bytes: int,
        lifetime: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.max_conversations, self.max_bytes, self.lifetime, self.clock = (
            max_conversations,
            max_bytes,
            lifetime,
            clock,
        )
        self.bytes = 0
        self._by_id: OrderedDict[str, _Conversation] = OrderedDict()  # the most recently used one is last

    def __len__(self) -> int:
        return len(self._by_id)

    @contextlib.contextmanager
    def turn(self, conversation_id: str | None) -> Iterator[ConversationTurn]:
        """Open the next turn of a conversation, or with None the first turn of a new one.

        The turn's new messages are stored when the block ends without an exception. Otherwise nothing changes, and a
        new conversation is not created.

        Raises ServiceError unknown_conversation when the id was never created or is expired, and conversation_busy
        while the previous turn is still in progress.
        """
        self.remove_expired()
        if conversation_id is None:
            conversation_id, conversation = secrets.token_urlsafe(32), _Conversation()
        elif conversation_id in self._by_id:
            conversation = self._by_id[conversation_id]
        else:
            raise ServiceError(
                "unknown_conversation",
                "this conversation does not exist or has expired; leave conversation_id out to begin a new one",
                param="conversation_id",
            )
        if conversation.busy:
            raise ServiceError(
                "conversation_busy",
                "the previous message of this conversation is still being answered; wait for its answer",
                param="conversation_id",
            )
        conversation.busy = True
        turn = ConversationTurn(conversation_id, conversation.history)
        try:
            yield turn
            if turn.new_messages:
                self._store(conversation_id, conversation, turn)
        finally:
            conversation.busy = False

    def _store(self, conversation_id: str, conversation: _Conversation, turn: ConversationTurn) -> None:
        self._remove(conversation_id)
        conversation.history = turn.history[turn.dropped :] + turn.new_messages
        conversation.bytes = sum(map(_size, conversation.history))
        conversation.last_used = self.clock()
        self._by_id[conversation_id] = conversation
        self.bytes += conversation.bytes
        while len(self._by_id) > self.max_conversations or self.bytes > self.max_bytes:
            self._remove(next(iter(self._by_id)))

    def remove_expired(self) -> None:
        """Remove the conversations that have not been used for their lifetime; each turn does this first."""
        now = self.clock()
        while self._by_id:
            conversation_id, oldest = next(iter(self._by_id.items()))
            if now - oldest.last_used < self.lifetime:
                break
            self._remove(conversation_id)

    def _remove(self, conversation_id: str) -> None:
        # A conversation may be removed during its turn: the turn holds its history and stores it again at its end.
        removed = self._by_id.pop(conversation_id, None)
        self.bytes -= removed.bytes if removed else 0


def _size(message: Message) -> int:
    # Python stores up to four bytes per character; an image has three bytes per pixel.
    return 4 * len(message.text) + sum(3 * image.width * image.height for image in message.images)
