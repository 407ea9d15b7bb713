"""How good answers and captions are: the measures that papers report, equal to the programs that define them."""

from shared.evaluation.bleu import bleu
from shared.evaluation.captions import score_captions
from shared.evaluation.cider import cider
from shared.evaluation.ptb_tokenizer import tokenize_caption
from shared.evaluation.rouge import rouge_l
from shared.evaluation.vqa import normalized_answer, score_answers, vqa_accuracy

__all__ = [
    "bleu",
    "cider",
    "normalized_answer",
    "rouge_l",
    "score_answers",
    "score_captions",
    "tokenize_caption",
    "vqa_accuracy",
]
