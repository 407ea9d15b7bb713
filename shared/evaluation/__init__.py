"""Accuracy, distances between image features; caption and answer metrics equal to the programs that papers use."""

from shared.evaluation.bleu import bleu
from shared.evaluation.caption_scores import score_captions
from shared.evaluation.cider import cider
from shared.evaluation.classification import accuracy
from shared.evaluation.frechet import frechet_distance, gaussian_frechet_distance
from shared.evaluation.ptb_tokenizer import tokenize_caption
from shared.evaluation.rouge import rouge_l
from shared.evaluation.vqa_accuracy import normalize_answer, score_answers, vqa_accuracy

__all__ = [
    "accuracy",
    "bleu",
    "cider",
    "frechet_distance",
    "gaussian_frechet_distance",
    "normalize_answer",
    "rouge_l",
    "score_answers",
    "score_captions",
    "tokenize_caption",
    "vqa_accuracy",
]
