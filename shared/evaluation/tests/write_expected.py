"""Run the programs that define the metrics and store their results, with which the tests compare.

    python -m shared.evaluation.tests.write_expected vqaEval.py      (needs requirements/oracles.txt, and Java)

pycocoevalcap scores captions, and the Treebank's tokenizer in it splits them into words. Answers are scored by VQA's
own `vqaEval.py`, from github.com/GT-Vision-Lab/VQA (PythonEvaluationTools/vqaEvaluation).
"""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from shared.evaluation.tests.cases import answer_cases, caption_cases, sentences

EXPECTED = Path(__file__).with_name("expected.json")


def official_scores(candidates: list[str], references: list[list[str]]) -> list[float]:
    result = {index: [text] for index, text in enumerate(candidates)}
    truth = dict(enumerate(references))
    bleu = Bleu(4).compute_score(truth, result, verbose=0)[0]
    return [*bleu, float(Cider().compute_score(truth, result)[0]), float(Rouge().compute_score(truth, result)[0])]


def official_words(texts: list[str]) -> list[str]:
    tokenized = PTBTokenizer().tokenize({index: [{"caption": text}] for index, text in enumerate(texts)})
    return [tokenized[index][0] for index in range(len(texts))]


def official_accuracies(program: str, cases: list[tuple[str, list[str]]]) -> list[float]:
    """Run the official program, which is Python 2 in its `print` statements only."""
    namespace: dict = {}
    exec(re.sub(r"print (\".*\")", "pass", program), namespace)
    namespace["VQAEval"].updateProgress = lambda self, progress: None
    questions = {
        number: {
            "answers": [{"answer": each, "answer_id": person} for person, each in enumerate(people)],
            "question_type": "what",
            "answer_type": "other",
        }
        for number, (_, people) in enumerate(cases)
    }
    truth = SimpleNamespace(qa=questions, getQuesIds=lambda: list(questions))
    answers = SimpleNamespace(qa={number: {"answer": answer} for number, (answer, _) in enumerate(cases)})
    evaluation = namespace["VQAEval"](truth, answers, n=6)
    evaluation.evaluate()
    return [evaluation.evalQA[number] / 100 for number in questions]


def main() -> None:
    program = Path(sys.argv[1]).read_text(encoding="utf-8")
    expected = {
        "captions": [official_scores(*case) for case in caption_cases()],
        "words": official_words(sentences()),
        "answers": official_accuracies(program, answer_cases()),
    }
    EXPECTED.write_text(json.dumps(expected, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
