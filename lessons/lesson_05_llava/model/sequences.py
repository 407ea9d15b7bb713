"""A conversation about an image as one row of tokens, and which of them the model is to learn.

    <|begin|><|turn|>user⏎<image>…<image>⏎what colour is the star?<|end|>⏎<|turn|>assistant⏎red<|end|>⏎
                                                                                         ▔▔▔▔▔▔▔▔
`<image>` is written once and stands as often as its image has tokens; the loss asks for what is underlined
(arXiv:2304.08485, table 2).
"""

from collections.abc import Sequence

from jaxtyping import Bool, Int
from torch import Tensor

from shared.finetuning import collate
from shared.tokenizers import ChatTemplate, EncodedConversation, Tokenizer, Turn

IMAGE = "<image>"


def instruction(question: str, answer: str | None = None, *, images: int = 1) -> list[Turn]:
    """What the two sides say: the images first, then the question; the answer, where there is one."""
    asked = Turn("user", f"{IMAGE}\n" * images + question)
    return [asked] if answer is None else [asked, Turn("assistant", answer)]


def conversation(
    template: ChatTemplate, question: str, answer: str | None = None, *, image_tokens: Sequence[int]
) -> EncodedConversation:
    """An instruction as tokens; without an answer it ends with the assistant's header, for the model to go on.

    image_tokens  how many tokens each image takes; none at all for a question without an image
    """
    turns = instruction(question, answer, images=len(image_tokens))
    return template.encode(turns, image_token_counts=image_tokens, add_generation_prompt=answer is None)


def interview(
    tokenizer: Tokenizer, turns: Sequence[tuple[str, str]], *, begin: str, image_tokens: Sequence[int]
) -> EncodedConversation:
    """The same for a language model that has never held a chat but has read interviews: a question and its answer a line.

        <|begin|><image>…<image>what colour is the star? red⏎where is it? top⏎
                                                         ▔▔▔▔              ▔▔▔▔
    turns  questions with their answers; an answer "" leaves the model to go on. A question "" is none: an answer by itself
    begin  the special token that begins a text
    """
    image = tokenizer.special_tokens[IMAGE]
    row = [(tokenizer.special_tokens[begin], False)] + [(image, False)] * sum(image_tokens)
    for question, answer in turns:
        row += [(number, False) for number in tokenizer.encode(question)]
        # A space belongs to the word behind it.
        said = f"{' ' if question else ''}{answer}\n" if answer else ""
        row += [(number, True) for number in tokenizer.encode(said)]
    return EncodedConversation([number for number, _ in row], [own for _, own in row])


def batch_of(
    conversations: Sequence[EncodedConversation],
) -> tuple[Int[Tensor, "batch text"], Bool[Tensor, "batch text"], Int[Tensor, "batch text"]]:
    """Tokens, whether each is an answer's, and segments, as long as the longest needs."""
    return collate(conversations)


def learned(
    tokens: Int[Tensor, "batch text"],
    answers: Bool[Tensor, "batch text"],
    segments: Int[Tensor, "batch text"],
    *,
    image_token: int,
    prompts: bool = False,
) -> Bool[Tensor, "batch text"]:
    """Which tokens the loss asks for: the answers' own, or (the ablation) the questions' too.

    Nobody is ever asked to guess an image token, for it is no word, nor padding.
    """
    # exercise 5.5: what is learned, and what is only read
    words = (tokens != image_token) & (segments >= 0)
    return words if prompts else words & answers
    # end exercise
