"""Caption metrics: equal to pycocoevalcap's on hundreds of sets, and to hand-computed values."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.evaluation import bleu, cider, rouge_l, score_captions, tokenize_caption
from shared.evaluation.rouge import longest_common_subsequence
from shared.evaluation.tests.cases import caption_cases, sentences

EXPECTED = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))


def words_of(text):
    return text.split()


def scores(candidates, references):
    captions = [text.split() for text in candidates]
    expected = [[text.split() for text in texts] for texts in references]
    return [*bleu(captions, expected), cider(captions, expected), rouge_l(captions, expected)]


def test_three_hundred_sets_score_as_in_pycocoevalcap():
    cases = caption_cases()
    assert len(cases) == len(EXPECTED["captions"]) == 300
    for case, expected in zip(cases, EXPECTED["captions"], strict=True):
        assert scores(*case) == pytest.approx(expected, abs=1e-12), case
    # The cases cover the range: scores of every size occur.
    for column in zip(*EXPECTED["captions"], strict=True):
        assert min(column) < 0.01 and len({round(score, 6) for score in column}) > 150 and max(column) > 0.9


texts = st.lists(st.sampled_from(["a", "dog", "cat", "is", "red", "ß", "你好"]), max_size=9).map(" ".join)
sets = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(sets)
def test_pycocoevalcap_itself_agrees(case):
    pytest.importorskip("pycocoevalcap", reason="live comparison: pip install -r requirements/oracles.txt")
    from shared.evaluation.tests.write_expected import official_scores

    candidates, references = [candidate for candidate, _ in case], [texts for _, texts in case]
    if any(text for texts in references for text in texts):
        assert scores(candidates, references) == pytest.approx(official_scores(candidates, references), abs=1e-12)


def test_five_hundred_captions_are_split_as_the_treebank_does():
    texts = sentences()
    assert len(texts) == len(EXPECTED["words"]) == 500
    for text, words in zip(texts, EXPECTED["words"], strict=True):
        assert " ".join(tokenize_caption(text)) == words, text


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man riding a wave.", "a man riding a wave"),
        ("The dog's toy isn't here!", "the dog 's toy is n't here"),
        ("T-shirts, hats & 3.5 l (of) milk;", "t-shirts hats & 3.5 l -lrb- of -rrb- milk"),
        ("Mr. Smith met Dr. No.", "mr. smith met dr. no"),
        ("  \n\t ", ""),
        ("?!...", "?!"),
    ],
)
def test_words(caption, words):
    assert tokenize_caption(caption) == words.split()


def test_bleu_by_hand():
    candidate, reference = words_of("the the the cat"), words_of("the cat sat")
    # 1-grams: "the" counts once, "cat" once: 2 of 4; pairs: "the cat", 1 of 3. No brevity penalty: 4 words to 3.
    one, two, *_ = bleu([candidate], [[reference]])
    assert one == pytest.approx(2 / 4) and two == pytest.approx(math.sqrt(2 / 4 * 1 / 3))
    short = bleu([["the", "cat"]], [[reference]])
    assert short[0] == pytest.approx(math.exp(1 - 3 / 2))


def test_the_nearest_reference_sets_the_length_and_the_shorter_of_two():
    four = words_of("a b c d")
    assert bleu([four], [[words_of("a b c d e"), words_of("a b c")]])[0] == pytest.approx(1.0)
    assert bleu([four], [[words_of("a b c d e f"), words_of("a b c d e")]])[0] == pytest.approx(math.exp(1 - 5 / 4))


def test_cider_prefers_words_that_are_specific_to_the_image():
    references = [["a man plays the accordion"], ["a man eats soup"], ["a man rides a horse"]]
    words = [[text.split() for text in texts] for texts in references]
    specific = cider([["accordion"], ["x"], ["x"]], words)
    common = cider([["man"], ["x"], ["x"]], words)
    assert specific > 5 * common and common == 0.0
    copied = cider([texts[0] for texts in words], words)
    assert copied == pytest.approx(10.0)
    assert cider([words[0][0]], words[:1]) == 0.0, "with one image nothing is rare"


def test_cider_does_not_reward_repetition():
    words = [[words_of("red dog runs fast here now")], [words_of("blue cat sits")]]
    honest = cider([words[0][0], ["x"]], words)
    repeated = cider([["red"] * 6, ["x"]], words)
    longer = cider([words[0][0] * 2, ["x"]], words)
    assert repeated < honest / 5 and longer < honest


def test_rouge_by_hand():
    assert longest_common_subsequence(words_of("a b c d e"), words_of("a x c e")) == 3
    precision, recall = 3 / 4, 3 / 5
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l([words_of("a x c e")], [[words_of("a b c d e")]]) == pytest.approx(expected)
    assert rouge_l([["q"]], [[words_of("a b")]]) == 0.0


def test_all_metrics_at_once_from_plain_text():
    references = {7: ["A dog runs.", "The dog is running!"], "b": ["Two cats sleep"]}
    exact = score_captions({"b": "two cats sleep.", 7: "a dog runs"}, references)
    assert list(exact) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr", "ROUGE-L"]
    assert exact["BLEU-1"] == pytest.approx(1.0) and exact["ROUGE-L"] == pytest.approx(1.0)
    swapped = score_captions({7: "two cats sleep.", "b": "a dog runs"}, references)
    assert all(swapped[name] < 0.01 for name in swapped)
    assert score_captions({7: "", "b": ""}, references)["ROUGE-L"] == 0.0


def test_captions_and_references_with_different_keys_raise():
    with pytest.raises(ValueError, match="no captions"):
        score_captions({}, {})
    with pytest.raises(ValueError, match="1 captions have no reference, the first is that of 3"):
        score_captions({3: "a"}, {4: ["a"]})
    with pytest.raises(ValueError, match="no reference"):
        score_captions({3: "a"}, {3: []})
    with pytest.raises(ValueError, match="1 images have references and no caption, the first is 4"):
        score_captions({3: "a"}, {3: ["a"], 4: ["a"]})


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ({"a": "x"}, {"a": "a cat"}, r"the references of 'a' is 'a cat' \(a str\); expected a list of texts"),
        ({"a": "x"}, {"a": {"a cat"}}, "the references of 'a' is {'a cat'}"),
        ({"a": "x"}, {"a": ["a cat", None]}, r"the references of 'a'\[1\] is None"),
        ({"a": 3}, {"a": ["a cat"]}, r"the caption of 'a' is 3 \(a int\); expected a text"),
        ({"a": ["a", "cat"]}, {"a": ["a cat"]}, r"the caption of 'a' is \['a', 'cat'\]"),
        (["a cat"], [["a cat"]], "candidates is .*expected a dictionary"),
    ],
)
def test_a_text_in_place_of_a_list_and_what_is_no_text_are_refused(candidates, references, message):
    """A text would be compared letter by letter."""
    with pytest.raises(ValueError, match=message):
        score_captions(candidates, references)


@pytest.mark.parametrize("metric", [bleu, cider, rouge_l])
def test_each_metric_refuses_texts_in_place_of_words(metric):
    words = words_of("a cat")
    with pytest.raises(ValueError, match=r"candidates\[0\] is 'a cat'"):
        metric(["a cat"], [[words]])
    with pytest.raises(ValueError, match=r"references\[0\]\[0\] is 'a cat'"):
        metric([words], [["a cat"]])
    with pytest.raises(ValueError, match=r"references\[0\] is 'a cat'"):
        metric([words], ["a cat"])
