"""The decoder's corpus: pure functions of a seed, with rules and combinations held out."""

from collections import Counter

import pytest

from data.datasets.text_folder import text_pieces
from data.toybox import documents as text
from data.toybox import episodes
from data.toybox import episodes as toy_episodes
from data.toybox.heldout import mentions_held_out
from shared.errors import CourseError


def rule_of(lines):
    """The rule of naming that all lines of an episode agree with; None when there is none or more than one."""
    fitting = []
    for rule in episodes.NAMING_RULES:
        names = [
            dict(zip(("size", "texture", "color", "shape"), line.prompt.rstrip(":").split(), strict=True))
            for line in lines
        ]
        if all(
            " ".join(scene_object[part] for part in rule) == line.answer
            for scene_object, line in zip(names, lines, strict=True)
        ):
            fitting.append(rule)
    return fitting[0] if len(fitting) == 1 else None


def test_a_document_is_a_pure_function_of_split_seed_and_number():
    assert text.documents("train", 3, 40) == [text.document_at("train", 3, number) for number in range(40)]
    assert len({*text.documents("train", 3, 40)} & {*text.documents("train", 4, 40)}) < 5
    train, validation = (
        {document for document in text.documents(split, 0, 600) if document.count("\n") > 1}
        for split in ("train", "validation")
    )
    assert len(train) > 250 and not train & validation


@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_training_text_mentions_a_held_out_combination(split):
    documents = text.documents(split, 0, 3000)
    assert not [document for document in documents if mentions_held_out(document)]
    assert any(map(mentions_held_out, text.documents("test", 0, 100)))


@pytest.mark.parametrize(("split", "held_out"), [("train", False), ("validation", True), ("test", False)])
def test_one_rule_holds_for_a_whole_naming_episode(split, held_out):
    rules = Counter(
        rule_of(toy_episodes.episode_at("naming", split, 1, number, held_out=held_out)) for number in range(400)
    )
    assert set(rules) == set(episodes.HELD_OUT_NAMING if held_out else episodes.SEEN_NAMING)
    assert min(rules.values()) >= 2


def test_seen_and_held_out_rules_share_their_attributes_and_places():
    assert set(episodes.SEEN_NAMING) | episodes.HELD_OUT_NAMING == set(episodes.NAMING_RULES)
    assert not set(episodes.SEEN_NAMING) & episodes.HELD_OUT_NAMING
    for length, times in ((2, 1), (3, 2)):
        for place in range(length):
            named = Counter(rule[place] for rule in episodes.HELD_OUT_NAMING if len(rule) == length)
            assert set(named.values()) == {times} and len(named) == 4


@pytest.mark.parametrize(("split", "held_out"), [("train", False), ("validation", True), ("test", False)])
def test_one_order_holds_for_a_whole_choosing_episode(split, held_out):
    orders = {True: episodes.HELD_OUT_CHOOSING, False: episodes.SEEN_CHOOSING}
    orders_found = set()
    for number in range(200):
        lines = toy_episodes.episode_at("choosing", split, 1, number, held_out=held_out)
        agreeing = {
            rule: all(episodes.first_in_order(rule, line.prompt) == line.answer for line in lines)
            for rule in episodes.CHOOSING_RULES
        }
        assert any(agreeing[rule] for rule in orders[held_out])
        orders_found |= {rule for rule in orders[held_out] if agreeing[rule]}
        assert {len(line.prompt.split()) for line in lines} <= {2, 3}
    assert orders_found == set(orders[held_out])


def test_held_out_orders_have_everything_everywhere_twice():
    assert set(episodes.SEEN_CHOOSING) | episodes.HELD_OUT_CHOOSING == set(episodes.CHOOSING_RULES)
    assert not set(episodes.SEEN_CHOOSING) & episodes.HELD_OUT_CHOOSING
    for place in range(4):
        assert set(Counter(rule[place] for rule in episodes.HELD_OUT_CHOOSING).values()) == {2}


def test_the_first_in_the_order_is_chosen():
    assert episodes.first_in_order(("shape", "size", "color", "texture"), "small striped red?") == "small"
    assert episodes.first_in_order(("texture", "color", "shape", "size"), "red circle?") == "red"


def test_the_best_guess_of_examples_one_can_count_by_hand():
    line = toy_episodes.Line("small red?", "red")
    assert episodes.best_guess([], line) == 1 / 2
    assert episodes.best_guess([toy_episodes.Line("large blue?", "blue")], line) == 1
    # Of three objects, the first is as likely any.
    assert episodes.best_guess([], toy_episodes.Line("small plain star?", "star")) == 1 / 3
    # Once color has come before size, it comes before texture too in two orders of three.
    assert episodes.best_guess(
        [toy_episodes.Line("large blue?", "blue")], toy_episodes.Line("plain red?", "red")
    ) == pytest.approx(2 / 3)


def test_document_types_have_the_configured_fractions():
    documents = text.documents("train", 0, 1200)
    for kind, mark in (("naming", ":"), ("choosing", "?")):
        fraction = sum(document.count("\n") > 1 and mark in document for document in documents) / 1200
        assert fraction == pytest.approx(text.MIXTURE[text.DOCUMENT_TYPES.index(kind)] / sum(text.MIXTURE), abs=0.05)


def test_mixed_episodes_have_the_same_lines_and_no_rule():
    usual, mixed = (text.documents("train", 0, 500, mixed=mixed) for mixed in (False, True))
    assert [d for d in usual if d.count("\n") == 1] == [d for d in mixed if d.count("\n") == 1]
    for of_usual, of_mixed in zip(usual, mixed, strict=True):
        assert of_usual.count("\n") == of_mixed.count("\n")
        if ":" in of_usual:
            for document, one_rule in ((of_usual, True), (of_mixed, False)):
                lines = [toy_episodes.Line(*line.rstrip(".").split(": ")) for line in document.splitlines()]
                assert (rule_of(lines) is not None) is one_rule


def test_an_unknown_split_or_type_is_refused():
    with pytest.raises(ValueError, match="no split 'exam'"):
        text.document_at("exam", 0, 0)
    with pytest.raises(ValueError, match="no episodes of type 'caption'"):
        toy_episodes.episode_at("caption", "train", 0, 0)


def test_real_text_is_read_from_a_folder_and_lost_nowhere(tmp_path, monkeypatch):
    story = "".join(f"Line {number}: the sea is gray.\n" for number in range(100))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "story.txt").write_text(story)
    pieces = text_pieces(f"folder:{tmp_path}")
    assert "".join(pieces) == story and len(pieces) > 5 and all(piece.endswith("\n") for piece in pieces)
    monkeypatch.setenv("MULTIMODAL_DATA", str(tmp_path))
    assert text_pieces("deep") == pieces
    with pytest.raises(CourseError, match=r"no \.txt file"):
        text_pieces("folder:nowhere")
