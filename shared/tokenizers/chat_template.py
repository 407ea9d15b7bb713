"""Format a conversation as one sequence of token ids, with a mask of the tokens that count in the loss."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.tokenizers.tokenizer import Tokenizer

ASSISTANT = "assistant"


@dataclass(frozen=True)
class Turn:
    """One message: `role` is "user", "assistant", "system" or any other one-line name."""

    role: str
    text: str


@dataclass(frozen=True)
class EncodedConversation:
    """A conversation as token ids. `loss_mask` is True for the assistant's own tokens, which count in the loss.

    Both lists have one entry per token.
    """

    token_ids: list[int]
    loss_mask: list[bool]


@dataclass(frozen=True)
class ChatTemplate:
    """Format conversations with special tokens at the beginning and around each turn.

        <|begin|><|turn|>user⏎ <image> What is this? <|end|>⏎<|turn|>assistant⏎ A red circle. <|end|>⏎

    (without the spaces around the texts). The loss mask covers the assistant's text and the <|end|> after it, which
    teaches the model to stop; it does not cover the header `<|turn|>assistant⏎`. With begin=None,
    turn="<|im_start|>" and end="<|im_end|>" this is ChatML, the template of Qwen2.

    Raises ValueError when the tokenizer lacks one of the special tokens.
    """

    tokenizer: Tokenizer
    begin: str | None = "<|begin|>"
    turn: str = "<|turn|>"
    end: str = "<|end|>"
    image: str | None = "<image>"

    def __post_init__(self) -> None:
        required = [token for token in (self.begin, self.turn, self.end, self.image) if token is not None]
        if missing := [token for token in required if token not in self.tokenizer.special_tokens]:
            raise ValueError(
                f"the tokenizer has no special token {', '.join(missing)}, only "
                f"{', '.join(self.tokenizer.special_tokens) or 'none'}; train it with special_tokens={required}"
            )

    def encode(
        self,
        turns: Sequence[Turn],
        *,
        image_token_counts: Sequence[int] = (),
        add_generation_prompt: bool = False,
    ) -> EncodedConversation:
        """Encode a conversation.

        image_token_counts     number of tokens per <image>, in reading order; the placeholder is repeated that often
                               and the model replaces it with image features. Assistant turns contain no images.
        add_generation_prompt  end with the header of an assistant turn, for the model to continue

        Text in a turn cannot forge another turn: <image> is the only special token that is recognized in it.
        Raises ValueError when the number of <image> differs from the number of counts, or a role is not one line.
        """
        special_tokens = self.tokenizer.special_tokens
        pairs = [] if self.begin is None else [(special_tokens[self.begin], False)]
        for turn in turns:
            in_loss = turn.role == ASSISTANT
            allowed = [] if in_loss or self.image is None else [self.image]
            content = self.tokenizer.encode(turn.text, allowed_special=allowed)
            pairs += [(token_id, False) for token_id in self._header(turn.role)]
            pairs += [(token_id, in_loss) for token_id in [*content, special_tokens[self.end]]]
            pairs += [(token_id, False) for token_id in self.tokenizer.encode("\n")]
        if add_generation_prompt:
            pairs += [(token_id, False) for token_id in self._header(ASSISTANT)]
        image_id = None if self.image is None else special_tokens[self.image]
        placeholders = sum(token_id == image_id for token_id, _ in pairs)
        if placeholders != len(image_token_counts):
            raise ValueError(
                f"the turns have {placeholders} {self.image}, but image_token_counts has {len(image_token_counts)} "
                "entries; give one count per <image>"
            )
        counts = iter(image_token_counts)
        pairs = [pair for pair in pairs for _ in range(next(counts) if pair[0] == image_id else 1)]
        return EncodedConversation([token_id for token_id, _ in pairs], [in_loss for _, in_loss in pairs])

    def _header(self, role: str) -> list[int]:
        if not role or "\n" in role:
            raise ValueError(f"a role is one line of text such as 'user', not {role!r}")
        return [self.tokenizer.special_tokens[self.turn], *self.tokenizer.encode(f"{role}\n")]
