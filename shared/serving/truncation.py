"""Leave out the oldest turns of a conversation that does not fit into the model's context."""

import bisect
from collections.abc import Callable, Sequence

from shared.serving.served_model import Message


def leave_out_oldest(messages: Sequence[Message], fits: Callable[[Sequence[Message]], bool]) -> Sequence[Message]:
    """Return the conversation without as many of its oldest turns as needed.

    A turn is a user message with what follows it. The system messages at the beginning stay, and so does the last turn,
    even if it does not fit alone.

    fits  whether a conversation fits; called for few of the possible lengths
    """
    first = next((place for place, message in enumerate(messages) if message.role != "system"), 0)
    later_turns = [place for place in range(first + 1, len(messages)) if messages[place].role == "user"]
    shortened = [messages, *([*messages[:first], *messages[place:]] for place in later_turns)]
    return shortened[bisect.bisect_left(range(len(shortened) - 1), True, key=lambda number: fits(shortened[number]))]
