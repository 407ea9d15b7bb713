"""What a bridge has learned, on scenes that hold a combination it has never met: captions that are true, answers that are right."""

from collections import Counter
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.toybox.language import caption, is_true
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_03_blip2.experiment.pairs import STOP, Pairs
from lessons.lesson_03_blip2.model import Blip2
from shared.tokenizers import Tokenizer
from shared.transformer import Sampling, generate

LONGEST = 24
Say = Callable[..., list[Tensor]]
"""Takes the numbers of some rows and how tokens are sampled; gives what is said of each."""


def shown(model: Blip2, pairs: Pairs, device: str) -> Say:
    """The model looks at each row's image before it goes on with the row's prompt."""

    def say(rows: Int[Tensor, "some"], sampling: Sampling) -> list[Tensor]:
        return model.answer(pairs.features[rows].to(device), pairs.given(rows), sampling)

    return say


def told_in_words(language: LanguageModel, tokenizer: Tokenizer, pairs: Pairs, device: str) -> Say:
    """The language model by itself reads a caption that tells all, where the others have an image: what a bridge can reach."""

    def say(rows: Int[Tensor, "some"], sampling: Sampling) -> list[Tensor]:
        captions = [f"{caption(pairs.scenes[row], 'places')}.{STOP}" for row in rows]
        read = [torch.tensor([tokenizer.special_tokens[BEGIN_TOKEN], *tokenizer.encode(text)]) for text in captions]
        prompts = [torch.cat(both).to(device) for both in zip(read, pairs.given(rows), strict=True)]
        return generate(language, prompts, sampling)

    return say


def written(say: Say, tokenizer: Tokenizer, pairs: Pairs) -> list[str]:
    """What is said of each row, greedily, up to the end of the line."""
    stops = [token for token in range(tokenizer.vocab_size) if STOP.encode() in tokenizer.decode_bytes([token])]
    texts = []
    for rows in torch.arange(len(pairs.texts)).split(64):
        answers = say(rows, Sampling(LONGEST, stop_token_ids=stops))
        texts += [tokenizer.decode(answer.tolist()).split(STOP)[0].strip() for answer in answers]
    return texts


def caption_accuracy(say: Say, tokenizer: Tokenizer, pairs: Pairs) -> dict[str, float | list[str]]:
    """The share of captions that are true of their scenes: each thing named once, none that is not there."""
    texts = written(say, tokenizer, pairs)
    true = [is_true(text, scene) for text, scene in zip(texts, pairs.scenes, strict=True)]
    return {"captions": sum(true) / len(true), "captions_written": texts[:16]}


def answer_accuracy(say: Say, tokenizer: Tokenizer, pairs: Pairs) -> dict[str, float]:
    """The share of right answers, over all and by kind of question, and what always giving a kind's commonest answer gets."""
    texts = written(say, tokenizer, pairs)
    right = [text == answer for text, answer in zip(texts, pairs.texts, strict=True)]
    measured = {"answers": sum(right) / len(right)}
    blind = 0
    for kind in dict.fromkeys(pairs.kinds):
        rows = [row for row, of in enumerate(pairs.kinds) if of == kind]
        measured[f"answers_{kind}"] = sum(right[row] for row in rows) / len(rows)
        blind += Counter(pairs.texts[row] for row in rows).most_common(1)[0][1]
    return measured | {"answers_blind": blind / len(right)}


@torch.no_grad()
def query_maps(model: Blip2, features: Float[Tensor, "pictures tokens context"]) -> list[list[list[float]]]:
    """Where each query of the last block that looks does so, mean of the heads: [pictures, queries, patches].

    The eye's class token, which stands before the patches, has no place in a picture and is left out.
    """
    queries = model.bridge.queries.expand(len(features), -1, -1)
    maps = model.bridge.qformer.cross_attention_maps(queries, features)[-1].mean(dim=1)
    return maps[:, :, model.vision.prefix_tokens :].tolist()
