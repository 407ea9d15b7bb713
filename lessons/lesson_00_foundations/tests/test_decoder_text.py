"""The decoder's corpus: pure functions of a seed, with rules and combinations held out."""

from collections import Counter

import pytest

from data.toybox.heldout import mentions_held_out
from data.toybox.scene import COLOURS, SHAPES
from lessons.lesson_00_foundations.decoder import text
from shared.errors import CourseError


def rule_of(lines):
    """The rule of naming that all lines of an episode agree with; None when there is none or more than one."""
    fitting = []
    for rule in text.NAMING_RULES:
        names = [
            dict(zip(("size", "texture", "colour", "shape"), line.shown.rstrip(":").split(), strict=True))
            for line in lines
        ]
        if all(" ".join(thing[part] for part in rule) == line.answer for thing, line in zip(names, lines, strict=True)):
            fitting.append(rule)
    return fitting[0] if len(fitting) == 1 else None


def test_a_document_is_a_pure_function_of_split_seed_and_number():
    assert text.documents("train", 3, 40) == [text.document_at("train", 3, number) for number in range(40)]
    assert len({*text.documents("train", 3, 40)} & {*text.documents("train", 4, 40)}) < 5
    train, validation = ({*text.documents(split, 0, 300, ["question"])} for split in ("train", "validation"))
    assert len(train) == 300 and not train & validation


@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_text_of_training_speaks_of_a_held_out_combination(split):
    documents = text.documents(split, 0, 3000)
    assert not [document for document in documents if mentions_held_out(document)]
    assert any(map(mentions_held_out, text.documents("test", 0, 100)))


@pytest.mark.parametrize(("split", "held_out"), [("train", False), ("validation", True), ("test", False)])
def test_one_rule_holds_for_a_whole_naming_episode(split, held_out):
    rules = Counter(rule_of(text.episode_at("naming", split, 1, number, held_out=held_out)) for number in range(400))
    assert set(rules) == set(text.HELD_OUT_NAMING if held_out else text.SEEN_NAMING)
    assert min(rules.values()) >= 2


def test_seen_and_held_out_rules_share_their_attributes_and_places():
    assert set(text.SEEN_NAMING) | text.HELD_OUT_NAMING == set(text.NAMING_RULES)
    assert not set(text.SEEN_NAMING) & text.HELD_OUT_NAMING
    for length, times in ((2, 1), (3, 2)):
        for place in range(length):
            named = Counter(rule[place] for rule in text.HELD_OUT_NAMING if len(rule) == length)
            assert set(named.values()) == {times} and len(named) == 4


@pytest.mark.parametrize("held_out", [False, True])
def test_made_up_words_keep_their_meanings_within_an_episode_only(held_out):
    seen = set()
    for number in range(300):
        lines = text.episode_at("words", "train", 0, number, held_out=held_out)
        meanings = dict(lines)
        assert all(meanings[line.shown] == line.answer for line in lines)
        if len(meanings) == 2:
            assert len(set(meanings.values())) == 2
            assert text.are_held_out_meanings(*meanings) is held_out
        seen |= set(meanings.items())
    # Every word has stood for every colour and every shape: nothing but the episode tells which it is now.
    assert len(seen) == len(text.MADE_UP) * (len(COLOURS) + len(SHAPES))


def test_each_meaning_has_partners_of_both_kinds():
    for values in (COLOURS, SHAPES):
        for value in values:
            partners = [text.are_held_out_meanings(value, other) for other in values if other != value]
            assert 0 < sum(partners) < len(partners)
            assert [text.are_held_out_meanings(other, value) for other in values if other != value] == partners


def test_documents_of_one_kind_and_of_all_in_their_shares():
    naming = sum(":" in document for document in text.documents("train", 0, 1200)) / 1200
    assert naming == pytest.approx(text.SHARES[text.KINDS.index("naming")] / sum(text.SHARES), abs=0.05)
    assert not [d for d in text.documents("train", 0, 100, ["caption", "question", "instruction"]) if ":" in d]


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no split 'exam'"):
        text.document_at("exam", 0, 0)
    with pytest.raises(ValueError, match="no episodes of kind 'caption'"):
        text.episode_at("caption", "train", 0, 0)


def test_real_text_is_read_from_a_folder_and_lost_nowhere(tmp_path, monkeypatch):
    story = "".join(f"Line {number}: the sea is grey.\n" for number in range(100))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "story.txt").write_text(story)
    pieces = text.real_documents(f"folder:{tmp_path}")
    assert "".join(pieces) == story and len(pieces) > 5 and all(piece.endswith("\n") for piece in pieces)
    monkeypatch.setenv("MULTIMODAL_DATA", str(tmp_path))
    assert text.real_documents("deep") == pieces
    with pytest.raises(CourseError, match=r"no \.txt file"):
        text.real_documents("folder:nowhere")
