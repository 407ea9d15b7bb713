"""VQA accuracy: how many annotators gave the same answer (arXiv:1505.00468, section 3; VQAv2's own evaluation)."""

import re
from collections.abc import Hashable, Mapping, Sequence

from shared.evaluation.texts import require_mapping, require_text, require_texts

# Answers may have these in full or with one apostrophe missing, which is restored. This is VQAv2's own list: with
# another one, other answers would count as right.
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
    why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905
RESTORED = {
    word[:index] + word[index + 1 :]: word for word in CONTRACTIONS for index, sign in enumerate(word) if sign == "'"
} | {"somebody'd": "somebodyd"}  # as in the official list
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {name: str(number) for number, name in enumerate(NAMES)} | {"none": "0"}
ARTICLES = frozenset(("a", "an", "the"))
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
FULL_AGREEMENT = 3  # annotators who must have given an answer for it to score 1


def remove_punctuation(answer: str) -> str:
    """Return the answer without punctuation: removed next to a space, replaced by a space between letters.

    In an answer with a comma between digits ("1,000"), all punctuation is removed. Periods are removed except before a
    digit.
    """
    remove = re.search(r"\d,\d", answer) is not None
    cleaned = answer
    for sign in PUNCTUATION:
        beside_space = f"{sign} " in answer or f" {sign}" in answer
        cleaned = cleaned.replace(sign, "" if remove or beside_space else " ")
    # The official program passes a flag in place of a count, so that it removes at most 32 periods.
    return re.sub(r"\.(?!\d)", "", cleaned, count=32)


def normalize_answer(answer: str) -> str:
    """Return an answer in the form that is compared: lower case, numbers as digits, no articles, no punctuation.

    Raises ValueError when the answer is no text.
    """
    require_text(answer, "the answer")
    words = [NUMBERS.get(word, word) for word in remove_punctuation(_one_line(answer)).lower().split()]
    return " ".join(RESTORED.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(answer: str, human_answers: Sequence[str]) -> float:
    """Return the accuracy of an answer: min(1, others with the same answer / 3), averaged over leaving out each person.

    An answer of 1 person in ten scores 0.3, of 2 people 0.6, of 3 people 0.9, and of 4 or more 1. All answers are
    normalized if people disagree. If all people give the same answer, it is compared as it is, upper case included.

    Raises ValueError when there are no human answers, the answer is no text, or the human ones are no list of texts.
    """
    require_text(answer, "the answer")
    require_texts(human_answers, "human_answers")
    if not human_answers:
        raise ValueError("there is no human answer to compare with; VQAv2 has ten per question")
    prediction, answers = _one_line(answer), [_one_line(each) for each in human_answers]
    if len(set(answers)) > 1:
        prediction, answers = normalize_answer(prediction), [normalize_answer(each) for each in answers]
    agreeing = sum(each == prediction for each in answers)
    return sum(min(1.0, (agreeing - (each == prediction)) / FULL_AGREEMENT) for each in answers) / len(answers)


def _one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def score_answers(
    answers: Mapping[Hashable, str],
    human_answers: Mapping[Hashable, Sequence[str]],
    question_types: Mapping[Hashable, str] | None = None,
) -> dict[str, float]:
    """Return the mean accuracy over all questions as "accuracy", and as "accuracy/TYPE" over the questions of a type.

    question_types  type of each question: VQAv2's `answer_type` ("yes/no", "number", "other") or `question_type`

    Raises ValueError when there are no answers, the keys of answers and human answers differ, an answer is no text, or
    human answers are no list of texts.
    """
    require_mapping(answers, "answers")
    require_mapping(human_answers, "human_answers")
    if not answers:
        raise ValueError("there are no answers to score")
    for keys, others, name in ((answers, human_answers, "human answers"), (human_answers, answers, "an answer")):
        missing = [key for key in keys if key not in others]
        if missing:
            raise ValueError(f"{len(missing)} questions lack {name}, the first is {missing[0]!r}")
    for key, answer in answers.items():
        require_text(answer, f"the answer to {key!r}")
        require_texts(human_answers[key], f"the human answers to {key!r}")
    scores = {key: vqa_accuracy(answer, human_answers[key]) for key, answer in answers.items()}
    groups: dict[str, list[float]] = {"accuracy": list(scores.values())}
    if question_types:
        for key, score in scores.items():
            groups.setdefault(f"accuracy/{question_types[key]}", []).append(score)
    return {name: sum(group) / len(group) for name, group in groups.items()}
