"""From a folder of texts to questions with answers: every sentence that says something of something can be asked for.

    A patch is a small square of pixels.          what is a patch?              → the sentence
    The cache keeps the keys and values of …      what does the cache keep?     → the sentence

The answer is the sentence itself: the expert says nothing that does not stand in its texts. A sentence that this small
grammar can't turn into a question is read all the same.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from data.toybox.scene import pick
from shared.errors import CourseError

HERE = Path(__file__).parent
TEXTS, EXAM = HERE / "texts", HERE / "exam.txt"

BE = ("is", "are", "was", "were")
# What a sentence may say of its subject; in the third person, and without the s for several.
VERBS = """
    adds answers asks becomes begins belongs brings builds calls carries changes chooses copies costs counts cuts decides divides
    fills finds follows forgets gathers gets gives grows guesses has helps hides holds joins keeps learns lets lies makes marks
    means measures needs offers opens points pulls reads remembers repeats saves says sees serves shares shows stands takes
    teaches tells thinks turns uses wants weighs works writes
""".split()  # noqa: SIM905
LONGEST_SUBJECT = 5
SMALL_WORDS = """
    a all an and are as at be by each every for from in is it its no not of on one or that the to was were what when which with
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
"""In which a fact is asked for in training; each fact keeps one of them for the test."""
ABOUT = ("what about {words}?", "{words}?", "which one is it with {words}?", "how do {words} go together?")
"""In which a fact is asked for by some words of its sentence, whatever they are: what people ask is not always what a thing is."""
NEW_WORDINGS = ("quick question: {direct}?", "could you remind me {indirect}?", "i wonder {indirect}.")
"""In which nothing is asked in training."""


@dataclass(frozen=True)
class Fact:
    """A sentence of the texts, and what it says of what: “A patch” “is” …"""

    sentence: str
    subject: str
    verb: str

    def ask(self, wording: str) -> str:
        """The question in one of the wordings."""
        if self.verb in BE:
            direct = f"what {self.verb} {self.subject}"
        else:
            singular = self.verb in VERBS
            direct = f"what {'does' if singular else 'do'} {self.subject} {_base(self.verb) if singular else self.verb}"
        indirect = f"what {self.subject} {self.verb}"
        return wording.format(direct=direct, indirect=indirect, echo=f"{self.subject} {self.verb} what")

    def ask_about(self, number: int) -> str:
        """One of many questions that name two to four words of the sentence, the `number`-th."""
        rng = Random(f"{number} {self.sentence}")
        words = sorted({word for word in re.findall(r"\w+", self.sentence.lower()) if word not in SMALL_WORDS})
        # Only `random()` gives the same numbers in every version of Python.
        some = sorted(words, key=lambda _: rng.random())[: 2 + int(3 * rng.random())]
        return pick(rng, ABOUT).format(words=" and ".join(some))


def _base(verb: str) -> str:
    """The verb as it stands after “does”: holds → hold, carries → carry, teaches → teach."""
    if verb == "has":
        return "have"
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    if re.search(r"(ch|sh|ss|x)es$", verb):
        return verb[:-2]
    return verb[:-1]


_PLURAL = {_base(verb) for verb in VERBS}


def fact_of(sentence: str) -> Fact | None:
    """What a sentence says of its subject, or None where the grammar finds none: the first verb within a few words decides."""
    words = re.findall(r"[^\s,;:]+[,;:]?", sentence.rstrip(".!?"))
    for place, word in enumerate(words[1 : LONGEST_SUBJECT + 1], start=1):
        if words[place - 1][-1] in ",;:":
            return None  # what stands before a comma is no subject
        verb = word.lower()
        if verb in BE or verb in VERBS or (verb in _PLURAL and words[place - 1].lower().endswith("s")):
            subject = " ".join(words[:place])
            return Fact(sentence, subject[0].lower() + subject[1:], verb)
    return None


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, each on one line."""
    return [part for part in re.split(r"(?<=[.!?])\s+", " ".join(text.split())) if part]


def read_texts(folder: Path | str) -> list[str]:
    """Every .txt file of a folder, and of the folders in it. Raises CourseError when there is none with text, or one is no UTF-8."""
    folder = Path(folder)
    texts = []
    for file in sorted(folder.glob("**/*.txt")):
        try:
            texts.append(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise CourseError(f"{file} is not UTF-8 text ({error}); save it as UTF-8 or move it away") from error
    if not any(text.strip() for text in texts):
        raise CourseError(f"{folder} holds no .txt file with text; put the texts there that the expert is to know")
    return texts


def facts_in(texts: Sequence[str]) -> list[Fact]:
    """All that can be asked for: facts whose subject and verb no other sentence has, so that each question has one answer."""
    found = [fact for text in texts for sentence in sentences(text) if (fact := fact_of(sentence))]
    often = Counter((fact.subject, fact.verb) for fact in found)
    return [fact for fact in found if often[fact.subject, fact.verb] == 1]


def read_exam(file: Path = EXAM) -> list[tuple[str, str]]:
    """Questions that a person has put in words of their own, each with the sentence that answers it."""
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(question, answer) for question, answer in rows]
