"""A conversation as one row of token numbers, with a note of which of them the assistant has to learn to say."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.tokenizers.tokenizer import Tokenizer

ASSISTANT = "assistant"


@dataclass(frozen=True)
class Turn:
    """What one side says: `role` is "user", "assistant", "system" or any name of one line."""

    role: str
    text: str


@dataclass(frozen=True)
class EncodedConversation:
    """numbers: of the tokens; answers: whether each is the assistant's own, so that its prediction counts in the loss."""

    numbers: list[int]
    answers: list[bool]


@dataclass(frozen=True)
class ChatTemplate:
    """How a conversation is written: special tokens at its begin and around each turn.

        <|begin|><|turn|>user⏎ <image> What is this? <|end|>⏎<|turn|>assistant⏎ A red circle. <|end|>⏎

    (without the spaces around the texts). The assistant learns its text and the <|end|> after it, by which it stops;
    the header it is given. With begin=None, turn="<|im_start|>" and end="<|im_end|>" it is ChatML, as Qwen2 has it.
    """

    tokenizer: Tokenizer
    begin: str | None = "<|begin|>"
    turn: str = "<|turn|>"
    end: str = "<|end|>"
    image: str | None = "<image>"

    def __post_init__(self):
        needed = [token for token in (self.begin, self.turn, self.end, self.image) if token is not None]
        if missing := [token for token in needed if token not in self.tokenizer.special_tokens]:
            raise ValueError(
                f"the tokenizer has no special token {', '.join(missing)}, only "
                f"{', '.join(self.tokenizer.special_tokens) or 'none'}; train it with special_tokens={needed}"
            )

    def encode(
        self, turns: Sequence[Turn], *, image_tokens: Sequence[int] = (), reply: bool = False
    ) -> EncodedConversation:
        """Write a conversation.

        image_tokens  how many tokens each <image> takes, in reading order; the placeholder is repeated so often, and
                      the model puts the image's vectors in their places. The assistant's own text has no images.
        reply         end with the assistant's header, for the model to go on

        What is said can't forge a turn: of the special tokens only <image> is read in it.
        Raises ValueError when there are more or fewer <image> than image_tokens, or a role is no line of text.
        """
        special_tokens = self.tokenizer.special_tokens
        row = [] if self.begin is None else [(special_tokens[self.begin], False)]
        for turn in turns:
            mine = turn.role == ASSISTANT
            said = self.tokenizer.encode(turn.text, allow=[] if mine or self.image is None else [self.image])
            row += [(number, False) for number in self._header(turn.role)]
            row += [(number, mine) for number in [*said, special_tokens[self.end]]]
            row += [(number, False) for number in self.tokenizer.encode("\n")]
        if reply:
            row += [(number, False) for number in self._header(ASSISTANT)]
        image = special_tokens.get(self.image)
        found = sum(number == image for number, _ in row)
        if found != len(image_tokens):
            raise ValueError(f"the turns have {found} {self.image}, but image_tokens tells of {len(image_tokens)}")
        lengths = iter(image_tokens)
        row = [pair for pair in row for _ in range(next(lengths) if pair[0] == image else 1)]
        return EncodedConversation([number for number, _ in row], [answer for _, answer in row])

    def _header(self, role: str) -> list[int]:
        if not role or "\n" in role:
            raise ValueError(f"a role is one line of text such as 'user', not {role!r}")
        return [self.tokenizer.special_tokens[self.turn], *self.tokenizer.encode(f"{role}\n")]
