"""Split a caption into words as the Penn Treebank's tokenizer does, on which caption metrics are defined."""

import re

from shared.evaluation.texts import require_text

# A period at the end of these words belongs to them; after any other word it ends the sentence and is removed.
ABBREVIATIONS = """
    mr mrs ms dr st sr jr prof gen rep sen gov lt col sgt capt rev hon messrs mt ft ave blvd rd
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri
    inc corp co ltd bros etc vs al vol fig approx assn dept est
""".split()  # noqa: SIM905
# Words that the Penn Treebank's tokenizer splits in two.
SPLIT = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "lemme": "lem me",
    "gimme": "gim me",
    "wanna": "wan na",
    "'tis": "'t is",
    "'twas": "'t was",
}
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
TYPOGRAPHY = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": "...", "`": "'", "½": "1/2", "£": "#", "€": "$"}
)
PUNCTUATION = re.compile(r"''?|\"|[?!,:;.]|\.{2,}|-+")

WORD = re.compile(
    r"""
      https?://\S+ | <[^<>\s]+> | @[a-z_]\w*              # addresses, tags, names of users
    | -[lr][rsc]b-                                        # brackets that are words already
    | '(?:tis|twas|em)\b | 'n' | ol' | y'(?=all\b) | ma'am\b   # words that keep their apostrophe
    | (?:nos?|pp?)\.(?=\s*\d)                                     # "no. 5" is a number, "no." a refusal
    | '(?:s|m|d|ll|re|ve)\b | n't\b                      # the second part of a contraction
    | (?:[a-z]\.){2,}[a-z]?(?![a-z])                      # u.s.a., p.m.
    | \d+(?:[.,:/]\d+)+ | \d+(?:-\d+)+                    # 3.5, 1,000, 10:30, 1/2, 1-800
    | o'clock\b | o'[a-z]{2,}                             # o'clock, o'neill
    | '\d\d?s\b                                          # '90s
    | [^\W_]+(?:[&@_/.+\#-](?=[^\W_])[^\W_]+)*\+*\#?      # t-shirt, and/or, r&b, x.y, c++
    | \.{2,} | -{2,} | '' | [?!]{2,}
    | [^\s\U00010000-\U0010FFFF]                          # any other sign; the tokenizer drops emoji
    """,
    re.VERBOSE,
)
CONTRACTION = re.compile(r"(?<=[a-z\d])(?=n't\b)|(?<=[a-z\d])(?='(?:s|m|d|ll|re|ve)\b)")


def tokenize_caption(caption: str) -> list[str]:
    """Return the words of a caption in lower case, without punctuation.

    COCO's captions are split by the Penn Treebank's tokenizer, a Java program; scores from other words are not
    comparable. This regular expression gives the same words for captions: "isn't" is two words ("is", "n't"), so is
    "dog's"; "t-shirt" and "3.5" are one. It does not cover web addresses and emoji.

    Raises ValueError when the caption is no text.
    """
    require_text(caption, "the caption")
    text = CONTRACTION.sub(" ", caption.lower().translate(TYPOGRAPHY))
    words = []
    for match in WORD.finditer(text):
        word = match[0]
        if text.startswith(".", match.end()) and (word in ABBREVIATIONS or (len(word) == 1 and word.isalpha())):
            word += "."
        if not PUNCTUATION.fullmatch(word):
            words += SPLIT.get(word, BRACKETS.get(word, word)).split()
    return words
