"""What has been learned, on scenes that hold a combination never met: right answers by kind of question, and descriptions."""

from collections import Counter

import torch

from lessons.lesson_05_llava.experiment.conversations import Asked
from lessons.lesson_05_llava.model import Llava
from shared.evaluation import score_captions
from shared.tokenizers import Tokenizer
from shared.transformer import Sampling

LONGEST = {"answer": 6, "description": 64}
KEPT = 12
"""Wrong answers kept, to be drawn."""


@torch.no_grad()
def answers_to(model: Llava, tokenizer: Tokenizer, asked: Asked, device: str, longest: int) -> list[str]:
    """What the model answers to each question, greedily, up to the end of the line."""
    model.eval()
    ends = [token for token in range(tokenizer.vocab_size) if b"\n" in tokenizer.decode_bytes([token])]
    written = []
    for rows in torch.arange(len(asked.prompts)).split(64):
        features = [asked.features[row : row + 1].to(device) for row in rows.tolist()]
        prompts = [asked.prompts[row] for row in rows.tolist()]
        for tokens in model.answer(prompts, features, Sampling(longest, stop_token_ids=ends)):
            written.append(tokenizer.decode(tokens.tolist()).split("\n")[0].strip())
    return written


def answer_accuracy(model: Llava, tokenizer: Tokenizer, asked: Asked, device: str, name: str) -> dict:
    """The share of right answers, over all and by kind, and the first wrong ones; and what the commonest answer would get."""
    given = answers_to(model, tokenizer, asked, device, LONGEST["answer"])
    right = [one == other for one, other in zip(given, asked.answers, strict=True)]
    measured: dict = {name: sum(right) / len(right)}
    commonest = 0
    for kind in dict.fromkeys(asked.kinds):
        rows = [row for row, of in enumerate(asked.kinds) if of == kind]
        measured[f"{name}_{kind}"] = sum(right[row] for row in rows) / len(rows)
        commonest += Counter(asked.answers[row] for row in rows).most_common(1)[0][1]
    wrong = [row for row, fits in enumerate(right) if not fits][:KEPT]
    return measured | {
        f"{name}_commonest": commonest / len(right),
        f"{name}_wrong": [[row, asked.questions[row], given[row], asked.answers[row]] for row in wrong],
    }


def description_scores(model: Llava, tokenizer: Tokenizer, asked: Asked, device: str) -> dict:
    """BLEU-4, CIDEr and ROUGE-L of the descriptions, and the first of them as written."""
    written = answers_to(model, tokenizer, asked, device, LONGEST["description"])
    scores = score_captions(dict(enumerate(written)), {row: [text] for row, text in enumerate(asked.answers)})
    named = {"BLEU-4": "bleu_4", "CIDEr": "cider", "ROUGE-L": "rouge_l"}
    return {ours: scores[theirs] for theirs, ours in named.items()} | {"descriptions": written[:8]}
