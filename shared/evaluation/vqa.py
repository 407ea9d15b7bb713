"""VQA accuracy: an answer is right as far as people agree with it (arXiv:1505.00468, section 3; VQAv2's own evaluation)."""

import re
from collections.abc import Hashable, Mapping, Sequence

# Said as a whole, or with one apostrophe left out; the latter are mended. (Nobody else's list would do: with another one
# another answer is right.)
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
    how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
    oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
    where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
    y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905
MENDED = {
    whole[:at] + whole[at + 1 :]: whole for whole in CONTRACTIONS for at, sign in enumerate(whole) if sign == "'"
} | {"somebody'd": "somebodyd"}  # so in the official list
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {name: str(number) for number, name in enumerate(NAMES)} | {"none": "0"}
ARTICLES = frozenset(("a", "an", "the"))
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
AGREEING = 3  # people who must have given an answer for it to be all right


def without_punctuation(answer: str) -> str:
    """The answer without signs; a sign that touches a space vanishes, one between letters becomes a space.

    Where a comma stands between digits ("1,000"), all signs vanish. Points do, but before a digit.
    """
    vanish = re.search(r"\d,\d", answer) is not None
    cleaned = answer
    for sign in PUNCTUATION:
        beside_space = f"{sign} " in answer or f" {sign}" in answer
        cleaned = cleaned.replace(sign, "" if vanish or beside_space else " ")
    # The official program passes a flag where a count belongs, so that it takes away 32 points at most.
    return re.sub(r"\.(?!\d)", "", cleaned, count=32)


def normalize_answer(answer: str) -> str:
    """An answer as it is compared: lower case, numbers as digits, no articles, no punctuation."""
    words = [NUMBERS.get(word, word) for word in without_punctuation(_one_line(answer)).lower().split()]
    return " ".join(MENDED.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(answer: str, human_answers: Sequence[str]) -> float:
    """How right an answer is, from 0 to 1: min(1, others who said so / 3), a mean over leaving each person out.

    So an answer of 1 person in ten scores 0.3, of 2 it scores 0.6, of 3 it scores 0.9, and of 4 it is right. All are
    normalized where people disagree. Where all say the same they are compared as they stand, upper case included.
    Raises ValueError when nobody has answered.
    """
    if not human_answers:
        raise ValueError("there is no human answer to compare with; VQAv2 has ten to a question")
    given, people = _one_line(answer), [_one_line(each) for each in human_answers]
    if len(set(people)) > 1:
        given, people = normalize_answer(given), [normalize_answer(each) for each in people]
    agreeing = sum(each == given for each in people)
    return sum(min(1.0, (agreeing - (each == given)) / AGREEING) for each in people) / len(people)


def _one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def score_answers(
    answers: Mapping[Hashable, str],
    human_answers: Mapping[Hashable, Sequence[str]],
    kinds: Mapping[Hashable, str] | None = None,
) -> dict[str, float]:
    """Mean accuracy over all questions, under "accuracy", and under "accuracy/KIND" over those of a kind.

    kinds   of each question: VQAv2's `answer_type` ("yes/no", "number", "other") or `question_type`

    Raises ValueError when there are no answers, or questions and answers are not the same.
    """
    if not answers:
        raise ValueError("there are no answers to score")
    for one, other, lacking in ((answers, human_answers, "human answers"), (human_answers, answers, "an answer")):
        missing = [key for key in one if key not in other]
        if missing:
            raise ValueError(f"{len(missing)} questions lack {lacking}, the first is {missing[0]!r}")
    scores = {key: vqa_accuracy(answer, human_answers[key]) for key, answer in answers.items()}
    groups: dict[str, list[float]] = {"accuracy": list(scores.values())}
    for key, score in scores.items() if kinds else ():
        groups.setdefault(f"accuracy/{kinds[key]}", []).append(score)
    return {name: sum(group) / len(group) for name, group in groups.items()}
