"""Make questions with answers from a folder of texts: one per sentence that this small grammar understands.

    A patch is a small square of pixels.          what is a patch?              → the sentence
    The cache keeps the keys and values of …      what does the cache keep?     → the sentence

The answer is the sentence itself. A sentence that the grammar cannot turn into a question is a training text only.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from data.toybox.scene import pick
from shared.errors import CourseError
from shared.folders import TEXT_SUFFIXES, walk_folder
from shared.text_files import read_text

FOLDER = Path(__file__).parent
TEXTS, EXAM = FOLDER / "texts", FOLDER / "exam.txt"

BE = ("is", "are", "was", "were")
VERBS = (FOLDER / "verbs.txt").read_text(encoding="utf-8").split()
"""The verbs of the grammar: in the third person, and without the s after a plural subject."""
LONGEST_SUBJECT = 5
SMALL_WORDS = """
    a all an and are as at be by each every for from in is it its no not of on one or that the to was were what
    when which with
""".split()  # noqa: SIM905

WORDINGS = (
    "{direct}?",
    "tell me {indirect}.",
    "do you know {indirect}?",
    "i forgot {indirect}.",
    "can you explain {indirect}?",
    "please say {indirect}.",
    "{echo}?",
    "and {direct}?",
)
"""Wordings of the training questions; for each fact one of them is held out for the test."""
KEYWORD_WORDINGS = ("what about {words}?", "{words}?", "which one is it with {words}?", "how do {words} go together?")
"""Wordings of training questions that name some words of a fact's sentence instead of its subject."""
NEW_WORDINGS = ("quick question: {direct}?", "could you remind me {indirect}?", "i wonder {indirect}.")
"""Wordings that no training question has."""


@dataclass(frozen=True)
class Fact:
    """Hold a sentence with its subject and its verb: “a patch”, “is”."""

    sentence: str
    subject: str
    verb: str

    def question(self, wording: str) -> str:
        """Return the question for this sentence in one of the wordings."""
        if self.verb in BE:
            direct = f"what {self.verb} {self.subject}"
        else:
            singular = self.verb in VERBS
            direct = f"what {'does' if singular else 'do'} {self.subject} {_base(self.verb) if singular else self.verb}"
        indirect = f"what {self.subject} {self.verb}"
        return wording.format(direct=direct, indirect=indirect, echo=f"{self.subject} {self.verb} what")

    def keyword_question(self, number: int) -> str:
        """Return the `number`-th question that names two to four words of the sentence."""
        rng = Random(f"{number} {self.sentence}")
        words = sorted({word for word in re.findall(r"\w+", self.sentence.lower()) if word not in SMALL_WORDS})
        # Only `random()` returns the same numbers in every version of Python.
        chosen = sorted(words, key=lambda _: rng.random())[: 2 + int(3 * rng.random())]
        return pick(rng, KEYWORD_WORDINGS).format(words=" and ".join(chosen))


def _base(verb: str) -> str:
    """Return the verb's form after “does”: holds → hold, carries → carry, teaches → teach."""
    if verb == "has":
        return "have"
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    if re.search(r"(ch|sh|ss|x)es$", verb):
        return verb[:-2]
    return verb[:-1]


_PLURAL = {_base(verb) for verb in VERBS}


def fact_of(sentence: str) -> Fact | None:
    """Find subject and verb of a sentence: the first known verb within a few words. Return None when there is none."""
    words = re.findall(r"[^\s,;:]+[,;:]?", sentence.rstrip(".!?"))
    for position, word in enumerate(words[1 : LONGEST_SUBJECT + 1], start=1):
        if words[position - 1][-1] in ",;:":
            return None  # words before a comma are no subject
        verb = word.lower()
        if verb in BE or verb in VERBS or (verb in _PLURAL and words[position - 1].lower().endswith("s")):
            subject = " ".join(words[:position])
            return Fact(sentence, subject[0].lower() + subject[1:], verb)
    return None


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text, in order, each on one line."""
    return [part for part in re.split(r"(?<=[.!?])\s+", " ".join(text.split())) if part]


def read_texts(folder: Path | str) -> list[str]:
    """Read every .txt file below a folder. Raise CourseError when none has text, or one is not UTF-8."""
    folder = Path(folder)
    texts = [read_text(folder / path) for path in walk_folder(folder, TEXT_SUFFIXES).files] if folder.is_dir() else []
    if not any(text.strip() for text in texts):
        raise CourseError(f"{folder} holds no .txt file with text; put the expert's texts there")
    return texts


def facts_in(texts: Sequence[str]) -> list[Fact]:
    """Return the facts whose subject and verb no other sentence has, so that each question has one answer."""
    facts = [fact for text in texts for sentence in split_sentences(text) if (fact := fact_of(sentence))]
    count = Counter((fact.subject, fact.verb) for fact in facts)
    return [fact for fact in facts if count[fact.subject, fact.verb] == 1]


def read_exam(file: Path = EXAM) -> list[tuple[str, str]]:
    """Read questions written by people, each with the sentence that answers it."""
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(question, answer) for question, answer in rows]
