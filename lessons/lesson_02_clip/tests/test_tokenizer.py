"""OpenAI's tokenizer: equal to the published class on any text, after the cleaning of the original code."""

import json
import random

import pytest
import torch
from transformers import CLIPTokenizer as Published

from lessons.lesson_02_clip.model.text_cleaning import clean, repair
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer, join_pair, split_letters, split_words
from shared.errors import CourseError

CAPTIONS = [
    "A photo of a cat, and two dogs.",
    "the cat's whiskers; they're long! don't you think so? I'll say we've 123 cats",
    "категория кошек, кошка и кот",
    "ein Käfer, zwei Käfer, größer als größte",
    "猫と犬の写真 写真",
    "a small striped purple triangle at the top left; a photo of the small category",
]
ADVERSARIAL = [
    *(
        "",
        " ",
        "\n\t ",
        "a",
        "A",
        "aa",
        "aaaa aaa",
        "CAT cat Cat",
        "cat  cat\u00a0cat\u3000cat",
        "cat\x85cat\x1ccat\x0bcat",
    ),
    *("don't DON'T don’t 'S's''s ''", "'sa's'll'd", "I'm you're we've he'd", "1234 12a3 a1b2 ½²Ⅷ ٣٤", "3.14-2,000"),
    *("<|startoftext|>", "a<|endoftext|>b", "<|EndOfText|>", "<|endoftext|", "</w> a</w>", "#version: 0.2"),
    *("naïve café e\u0301cole", "Größe ẞ ß", "İstanbul ıI", "ΣΊΣΥΦΟΣ ὈΔΥΣΣΕΎΣ", "ﬁne", "ſt 'ſ", "K Å Ω"),
    *("🏳️‍🌈👩‍👩‍👧‍👦😀", "\u200b\u200d", "\u0301 \u0301a", "日本語の猫、犬。", "नमस्ते दुनिया", "שלום עולם", "العربية"),
    *(
        "!!!???...---",
        "a_b__c",
        "@#$%^&*()[]{}",
        "a/b\\c",
        "&amp; &lt;b&gt; &#233;",
        "\ufffd\U0010ffff\U000e0001",
        "\U00031350\U000105c0",
    ),
    *("‚low‘", "Ǆ ǅ ǆ", "ｶﾞﾗｽ ﾊﾟﾝ", "cut \ud83d", "\ud83d\ude00", "\udcff\udcfe"),
    *("purple" * 60, "x" * 300, " " * 50 + "cat" + " " * 50),
]


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.train(CAPTIONS * 3, 200)


@pytest.fixture(scope="module")
def published(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return Published.from_pretrained(folder)


def published_ids(published, text):
    return published(clean(text))["input_ids"]


@pytest.mark.parametrize("text", ADVERSARIAL, ids=ascii)
def test_token_ids_equal_those_of_the_published_class(tokenizer, published, text):
    token_ids = [tokenizer.start, *tokenizer.encode(text), tokenizer.end]
    assert token_ids == published_ids(published, text)


def test_token_ids_of_random_texts_equal_those_of_the_published_class(tokenizer, published):
    generator = random.Random(0)
    pieces = [piece for text in CAPTIONS + ADVERSARIAL for piece in text.split(" ")]
    anything = [
        chr(code) for code in [*range(32, 127), *range(0xA0, 0x250), *range(0x370, 0x400), *range(0x4E00, 0x4E40)]
    ]
    for _ in range(300):
        text = " ".join(generator.choices(pieces, k=6)) + "".join(generator.choices(anything, k=12))
        # A final sigma is written ς by Python, as in the original code, and σ by the published class.
        text = text.lower().replace("ς", "σ")
        assert [tokenizer.start, *tokenizer.encode(text), tokenizer.end] == published_ids(published, text), text


def test_rows_have_the_full_context_length(tokenizer, published):
    rows = tokenizer(CAPTIONS)
    expected = published([clean(text) for text in CAPTIONS], padding="max_length", max_length=77, return_tensors="pt")
    assert torch.equal(rows, expected["input_ids"])


def test_a_caption_that_does_not_fit(tokenizer, published):
    long = "a cat and " * 50
    with pytest.raises(ValueError, match=r"'a cat and a cat.* has \d+ tokens with start and end, and 77 fit"):
        tokenizer([long])
    row = tokenizer([long], truncate=True)
    expected = published([clean(long)], padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    assert torch.equal(row, expected["input_ids"]) and row[0, -1] == tokenizer.end
    with pytest.raises(ValueError, match="encoded separately"):
        tokenizer("a cat")


def test_files_are_written_and_read(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert (again.vocab, again.merges, again.context_length) == (tokenizer.vocab, tokenizer.merges, 77)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    assert CLIPTokenizer.from_pretrained(tmp_path).context_length == 77
    for length in (0, -1, True, "77", 77.0, [77]):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": length}))
        with pytest.raises(CourseError, match=r"model_max_length is .*, expected at least 2 tokens"):
            CLIPTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    for vocab, reason in ((tokenizer.vocab | {"a": "64"}, "'a' has the id '64'"), ([], "readable")):
        (tmp_path / "vocab.json").write_text(json.dumps(vocab))
        with pytest.raises(CourseError, match=reason):
            CLIPTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text("[" * 100_000)
    with pytest.raises(CourseError, match="readable CLIP tokenizer"):
        CLIPTokenizer.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nq zzz\n")
    with pytest.raises(CourseError, match="'qzzz'"):
        CLIPTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(CourseError, match=r"vocab\.json does not exist"):
        CLIPTokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_without_all_bytes_is_refused(tokenizer):
    with pytest.raises(ValueError, match="2 tokens have no id, among them 'é'"):
        CLIPTokenizer(
            {token: token_id for token, token_id in tokenizer.vocab.items() if token not in ("é", "é</w>")}, []
        )


# ── By hand ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_last_letter_of_a_word_is_a_token_apart():
    assert split_letters("cat") == ("c", "a", "t</w>") and split_letters("é") == ("Ã", "©</w>")
    assert split_words("a cat's 12 paws!?") == ["a", "cat", "'s", "1", "2", "paws", "!?"]
    assert join_pair(("a", "a", "a", "b</w>"), ("a", "a")) == ("aa", "a", "b</w>")


def test_training_joins_the_most_frequent_pair_first():
    tokenizer = CLIPTokenizer.train(["low low low lower lower newest"], 3, context_length=9)
    # "l o" comes 5 times; then "lo w</w>" and "w e" 3 times each, and of equals the first in the alphabet is joined.
    assert tokenizer.merges == [("l", "o"), ("lo", "w</w>"), ("w", "e")]
    rows = tokenizer(["low lower"])
    spellings = [tokenizer._spellings[token_id] for token_id in rows[0].tolist()]
    assert spellings == ["<|startoftext|>", "low</w>", "lo", "we", "r</w>", *["<|endoftext|>"] * 4]
    assert tokenizer.decode(rows[0].tolist()) == "low lower"


def test_a_small_corpus_runs_out_of_pairs():
    tokenizer = CLIPTokenizer.train(["purple triangle"], 1000)
    assert len(tokenizer.encode("Purple  TRIANGLE")) == 2 and len(tokenizer.merges) < 20


# ── Cleaning (expected values are those of OpenAI's code with the library ftfy) ──────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("cafÃ© au lait", "café au lait"),
        ("itâ€™s â€œfineâ€\x9d", 'it\'s "fine"'),
        ("Ã¢â‚¬â„¢ twice", "' twice"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
        ("ðŸ˜€ smile", "😀 smile"),
        ("&amp;lt;b&amp;gt; &eacute;", "<b> é"),
        ("“Quotes” ‘single’", "\"quotes\" 'single'"),
        ("ﬁne ﬂow", "fine flow"),
        ("ＦＵＬＬ　ｗｉｄｔｈ", "full width"),
        ("a\r\nb\rc\u2028d", "a b c d"),
        ("\x00\x07bell\ufeff", "bell"),
        ("\x85dots\x93q\x94", '…dots"q"'),
        ("e\u0301cole", "école"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("  Hello   \t\n World  ", "hello world"),
        ("‚low‘ ‛quotes’", "'low' 'quotes'"),
        ("ǅungla, ǈubav, ǋegoš, ǲ", "džungla, ljubav, njegoš, dz"),
        ("Ǆ Ǉ Ǌ Ǳ, ǆ ǉ ǌ ǳ", "dž lj nj dz, dž lj nj dz"),
        ("ｶﾞﾗｽ､ ﾊﾟﾝ｡ ￥100 ￡ ﾡ", "ガラス、 パン。 ¥100 £ ᄀ"),
        ("cut \ud83d here \udcff", "cut \ufffd here \ufffd"),
        ("both \ud83d\ude00 halves", "both 😀 halves"),
        ("&EACUTE;TUDE &bogus; &#233; &#x20AC;", "étude &bogus; é €"),
        # Text that only resembles mojibake stays.
        ("CAFÉ’S ENTRÉE’S", "café's entrée's"),
        ("CAFÉ… À… „Ö“", 'café… à… "ö"'),
        ("weiß… groß’", "weiß… groß'"),
        ("SÃO PAULO", "são paulo"),
        ("AÑB 100 ° «A»", "añb 100 ° «a»"),
    ],
    ids=ascii,
)
def test_a_text_is_cleaned_as_the_original_code_does(text, cleaned):
    assert clean(text) == cleaned
    assert clean(cleaned) == cleaned


def test_repair_keeps_correct_texts():
    for text in ("Größe naïve Œuvre", "日本語、नमस्ते", "a <b> &amp; c", "½ ² Ⅷ", "ABC abc", "CAFÉ… groß…", "ガラス"):
        assert repair(text) == text
