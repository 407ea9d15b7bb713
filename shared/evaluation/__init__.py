"""Accuracy of classifiers; metrics of captions and answers, equal to the programs with which papers compute them."""

from shared.evaluation.bleu import bleu
from shared.evaluation.caption_scores import score_captions
from shared.evaluation.cider import cider
from shared.evaluation.classification import accuracy
from shared.evaluation.ptb_tokenizer import tokenize_caption
from shared.evaluation.rouge import rouge_l
from shared.evaluation.vqa_accuracy import normalize_answer, score_answers, vqa_accuracy

__all__ = [
    "accuracy",
    "bleu",
    "cider",
    "normalize_answer",
    "rouge_l",
    "score_answers",
    "score_captions",
    "tokenize_caption",
    "vqa_accuracy",
]
