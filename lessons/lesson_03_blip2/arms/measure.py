"""What a bridge has learned, on scenes that hold a combination it has never met: captions that are true, answers that are right."""

from collections import Counter

import torch
from jaxtyping import Float
from torch import Tensor

from data.toybox.language import is_true
from lessons.lesson_03_blip2.arms.pairs import STOP, Pairs
from lessons.lesson_03_blip2.model import Blip2
from shared.tokenizers import Tokenizer

LONGEST = 24


@torch.no_grad()
def written(model: Blip2, tokenizer: Tokenizer, pairs: Pairs, device: str) -> list[str]:
    """What it writes for each picture, greedily, after its prompt and up to the end of the line."""
    stops = [token for token in range(tokenizer.vocab_size) if STOP.encode() in tokenizer.decode_bytes([token])]
    texts = []
    for rows in torch.arange(len(pairs.texts)).split(64):
        prompts = [pairs.tokens[row, : pairs.prompts[row]] for row in rows]
        answers = model.answer(pairs.features[rows].to(device), prompts, max_new_tokens=LONGEST, stop_tokens=stops)
        texts += [tokenizer.decode(answer.tolist()).split(STOP)[0].strip() for answer in answers]
    return texts


def caption_accuracy(model: Blip2, tokenizer: Tokenizer, pairs: Pairs, device: str) -> dict[str, float | list[str]]:
    """The share of captions that are true of their scenes: each thing named once, none that is not there."""
    texts = written(model, tokenizer, pairs, device)
    true = [is_true(text, scene) for text, scene in zip(texts, pairs.scenes, strict=True)]
    return {"captions": sum(true) / len(true), "captions_written": texts[:16]}


def answer_accuracy(model: Blip2, tokenizer: Tokenizer, pairs: Pairs, device: str) -> dict[str, float]:
    """The share of right answers, over all and by kind of question, and what always giving a kind's commonest answer gets."""
    texts = written(model, tokenizer, pairs, device)
    right = [text == answer for text, answer in zip(texts, pairs.texts, strict=True)]
    measured = {"answers": sum(right) / len(right)}
    blind = 0
    for kind in dict.fromkeys(pairs.kinds):
        rows = [row for row, of in enumerate(pairs.kinds) if of == kind]
        measured[f"answers_{kind}"] = sum(right[row] for row in rows) / len(rows)
        blind += Counter(pairs.texts[row] for row in rows).most_common(1)[0][1]
    return measured | {"answers_blind": blind / len(right)}


@torch.no_grad()
def query_maps(model: Blip2, features: Float[Tensor, "pictures patches context"]) -> list[list[list[float]]]:
    """Where each query of the last block that looks does so, mean of the heads: [pictures, queries, patches]."""
    queries = model.bridge.queries.expand(len(features), -1, -1)
    return model.bridge.qformer.cross_attention_maps(queries, features)[-1].mean(dim=1).tolist()
