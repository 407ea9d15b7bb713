"""A conversation about an image as one row of token ids, and which of them are in the loss.

    <|begin|><|turn|>user⏎<image>…<image>⏎what color is the star?<|end|>⏎<|turn|>assistant⏎red<|end|>⏎
                                                                                         ▔▔▔▔▔▔▔▔
`<image>` is written once in the text and expanded to one token id per image token. The underlined token ids are in the
loss (arXiv:2304.08485, table 2).
"""

from collections.abc import Sequence

from jaxtyping import Bool, Int
from torch import Tensor

from shared.tokenizers import ChatTemplate, EncodedConversation, Tokenizer, Turn
from shared.tokenizers.special_tokens import BEGIN_TOKEN, IMAGE_TOKEN


def instruction_turns(question: str, answer: str | None = None, *, images: int = 1) -> list[Turn]:
    """Return the user's turn, which starts with one `<image>` per image, and the assistant's if there is an answer."""
    user = Turn("user", f"{IMAGE_TOKEN}\n" * images + question)
    return [user] if answer is None else [user, Turn("assistant", answer)]


def encode_conversation(
    template: ChatTemplate, question: str, answer: str | None = None, *, image_token_counts: Sequence[int]
) -> EncodedConversation:
    """Encode one question with its answer; without an answer the row ends with the assistant's header.

    image_token_counts  tokens per image; empty for a question without an image
    """
    turns = instruction_turns(question, answer, images=len(image_token_counts))
    return template.encode(turns, image_token_counts=image_token_counts, add_generation_prompt=answer is None)


def encode_interview(
    tokenizer: Tokenizer,
    turns: Sequence[tuple[str, str]],
    *,
    image_token_counts: Sequence[int],
    begin: str = BEGIN_TOKEN,
) -> EncodedConversation:
    """Encode questions and answers, one pair per line, for a language model that was pretrained on interviews.

        <|begin|><image>…<image>what color is the star? red⏎where is it? top⏎
                                                         ▔▔▔▔              ▔▔▔▔
    turns  (question, answer) pairs; an answer "" leaves the line open for generation, a question "" gives the answer
           alone
    begin  the special token that starts a document
    """
    image_token_id = tokenizer.special_tokens[IMAGE_TOKEN]
    row = [(tokenizer.special_tokens[begin], False)] + [(image_token_id, False)] * sum(image_token_counts)
    for question, answer in turns:
        row += [(token_id, False) for token_id in tokenizer.encode(question)]
        # A space belongs to the word after it.
        reply = f"{' ' if question else ''}{answer}\n" if answer else ""
        row += [(token_id, True) for token_id in tokenizer.encode(reply)]
    return EncodedConversation([token_id for token_id, _ in row], [in_loss for _, in_loss in row])


def loss_mask(
    token_ids: Int[Tensor, "batch text"],
    answer_mask: Bool[Tensor, "batch text"],
    segments: Int[Tensor, "batch text"],
    *,
    image_token_id: int,
    prompts: bool = False,
) -> Bool[Tensor, "batch text"]:
    """Return which token ids are in the loss: the answers, and with `prompts` (an ablation) also the questions.

    Image tokens and padding (segment −1) are never in the loss.
    """
    # exercise 5.5: the loss mask
    text_mask = (token_ids != image_token_id) & (segments >= 0)
    return text_mask if prompts else text_mask & answer_mask
    # end exercise
