"""A conversation as one row of token numbers, with a note of which of them the assistant has to learn to say."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.tokenizers.tokenizer import Tokenizer

ASSISTANT = "assistant"


@dataclass(frozen=True)
class Turn:
    """What one side says: `role` is "user", "assistant", "system" or any name of one line."""

    role: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """numbers: of the tokens; answers: whether each is the assistant's own, so that its prediction counts in the loss."""

    numbers: list[int] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)

    def _add(self, numbers: list[int], *, answer: bool = False) -> None:
        self.numbers.extend(numbers)
        self.answers.extend([answer] * len(numbers))


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
        if missing := [token for token in needed if token not in self.tokenizer.specials]:
            raise ValueError(
                f"the tokenizer has no special token {', '.join(missing)}, only "
                f"{', '.join(self.tokenizer.specials) or 'none'}; train it with specials={needed}"
            )

    def encode(self, turns: Sequence[Turn], *, image_tokens: Sequence[int] = (), reply: bool = False) -> Conversation:
        """Write a conversation.

        image_tokens  how many tokens each <image> takes, in reading order; the placeholder is repeated so often, and
                      the model puts the image's vectors in their places. The assistant's own text has no images.
        reply         end with the assistant's header, for the model to go on

        What is said can't forge a turn: of the special tokens only <image> is read in it.
        Raises ValueError when there are more or fewer <image> than image_tokens, or a role is no line of text.
        """
        specials, plain = self.tokenizer.specials, self.tokenizer.encode
        said, images = Conversation(), iter(image_tokens)
        if self.begin is not None:
            said._add([specials[self.begin]])
        found = 0
        for turn in turns:
            said._add(self._header(turn.role))
            if turn.role == ASSISTANT:
                said._add([*plain(turn.text), specials[self.end]], answer=True)
            else:
                for number in plain(turn.text, allow=[self.image] if self.image else []):
                    if number == specials.get(self.image):
                        found += 1
                        said._add([number] * next(images, 1))
                    else:
                        said._add([number])
                said._add([specials[self.end]])
            said._add(plain("\n"))
        if found != len(image_tokens):
            raise ValueError(f"the turns have {found} {self.image}, but image_tokens tells of {len(image_tokens)}")
        if reply:
            said._add(self._header(ASSISTANT))
        return said

    def _header(self, role: str) -> list[int]:
        if not role or "\n" in role:
            raise ValueError(f"a role is one line of text such as 'user', not {role!r}")
        return [self.tokenizer.specials[self.turn], *self.tokenizer.encode(f"{role}\n")]
