"""Captions, references and answers to score, drawn from a seed: ordinary ones and edge cases."""

from random import Random

WORDS = (  # noqa: SIM905
    "a a the man woman dog cat red ball on in of with two surfboard wave riding café 你好 ß 🙂 naïve o'clock"
).split()
ODD = [
    "",
    "a",
    "dog",
    "dog dog dog dog dog dog",
    "a a a a a a a a a a a a",
    "🙂",
    "你好 你好",
    "word " * 40,
    "ﬁ fi İ i̇",
]

# Pieces of captions, to compare with the Treebank's tokenizer.
PIECES = (  # noqa: SIM905
    "a the man woman dog dogs' dog's t-shirt isn't can't it's he'll they've I'm cannot and/or 3 3.5 1,000 "
    "10:30 1/2 50% $5 (left) [right] \"stop\" 'go' red, blue. green! yellow? Mr. St. U.S. p.m. etc. vs. a.m. "
    "black-and-white double--dash - -- ... … O'Neill snow_board café naïve über straße 你好 5th 2nd #1 R&B b. "
    "end; colon: x.y won't shouldn't y'all ma'am rock'n'roll '90s 1990s 6'2\" 5ft. 12oz. co. dr. sign: STOP "
    '"parking" w/ w/o & + = * ~ | / @home me@x.com gonna wanna \'tis -lrb- £5 €5 don’t “hi” – — ?! !!! .... '
    "no Jan. Sept. Ave. inc. half-eaten x-ray 2x4 7-eleven 1-2-3 st. i.e. e.g. d.c. i'd you're we're what's "
    "let's 'em ol'"
).split()

ANSWERS = (  # noqa: SIM905
    "yes no 2 two Two none zero ten a the red Red red. red, dark-red dark red dont don't can't cant 1,000 "
    "1000 1,000.50 3.5 u.s. u.s (left) left/right left?right! rock-n-roll yall yall'll y'allll couldntve "
    "couldnt've somebody'd ow's'at maam Im im its it's lets hes he's what?! {x} [x] <x> x_y x=y a/b c+d "
    '@home `q` "q" q\\z … 你好 🙂 .. . , ? -'
).split()


# Punctuation that is judged by its place before other signs are removed; and more periods than the official program
# removes.
EDGE_CASES = [
    ("xy cd", ["x/?y c?d"] * 5 + ["z"] * 5),
    ("x y c d", ["x/?y c?d"] * 5 + ["z"] * 5),
    ("ab", ["ab" + "." * 40] * 5 + ["z"] * 5),
]


def _draw(random: Random, choices):
    # `random()` is guaranteed to stay the same in every Python version; `choice` and `shuffle` are not.
    return choices[int(random.random() * len(choices))]


def _caption(random: Random) -> str:
    if random.random() < 0.15:
        return _draw(random, ODD)
    return " ".join(_draw(random, WORDS) for _ in range(int(random.random() * 12)))


def caption_cases(count: int = 300) -> list[tuple[list[str], list[list[str]]]]:
    """Return sets of candidates and their references, words with single spaces; some copy a reference in part."""
    random, cases = Random(7), []
    for _ in range(count):
        candidates, references = [], []
        for _ in range(1 + int(random.random() * 5)):
            image_references = [" ".join(_caption(random).split()) for _ in range(1 + int(random.random() * 5))]
            words = _draw(random, image_references).split()
            kind = random.random()
            if kind < 0.3:
                words = words[: int(random.random() * (len(words) + 1))]
            elif kind < 0.5:
                words = [*words, *words[::-1]]
            elif kind < 0.8:
                words = _caption(random).split()
            candidates.append(" ".join(words))
            references.append(image_references)
        if not any(text for image_references in references for text in image_references):
            references[0].append("dog")  # pycocoevalcap fails if no reference has a word
        cases.append((candidates, references))
    return cases


def sentences(count: int = 500) -> list[str]:
    random, texts = Random(8), []
    for _ in range(count):
        text = " ".join(_draw(random, PIECES) for _ in range(int(random.random() * 8)))
        texts.append(text + "." if random.random() < 0.5 else text)
    return texts


def answer_cases(count: int = 600) -> list[tuple[str, list[str]]]:
    """Return answers, each with ten human answers, of which some or all often agree."""
    random, cases = Random(9), list(EDGE_CASES)

    def answer() -> str:
        return _draw(random, [" ", "\n", "\t", ""]).join(
            _draw(random, ANSWERS) for _ in range(1 + int(random.random() * 3))
        )

    while len(cases) < count:
        pool = [answer() for _ in range(1 + int(random.random() * 4))]
        if random.random() < 0.2:
            pool = pool[:1]
        human_answers = [_draw(random, pool) for _ in range(10)]
        cases.append((_draw(random, pool) if random.random() < 0.7 else answer(), human_answers))
    return cases
