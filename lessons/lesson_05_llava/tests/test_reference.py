"""The pure-Python LLaVA: conversations, features, both stages."""

import json
from random import Random

import pytest

from lessons.lesson_05_llava import reference
from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.decoder import Decoder
from shared.testing import quick_run


def words(row):
    return " ".join(reference.WORDS[token] for token in row)


def test_right_answers_to_each_question():
    assert [reference.answer_to("next", digit) for digit in (0, 4, 9)] == ["one", "five", "zero"]
    assert [reference.answer_to("even", digit) for digit in (0, 3, 8)] == ["yes", "no", "yes"]
    assert [reference.answer_to("large", digit) for digit in (4, 5)] == ["no", "yes"]
    assert reference.answer_to("which", 7) == "seven"


def test_a_conversation_is_written_and_its_image_expanded():
    row = reference.conversation("<image>", [("even", "no"), ("next", "")])
    assert words(row) == "<user> <image> even <assistant> no <end> <user> next <assistant>"
    assert words(reference.expand_images(row, 3)) == words(row).replace("<image>", "<image> <image> <image>")


def test_only_the_assistants_words_and_their_ends_are_learned():
    row = reference.conversation("seven", [("even", "no"), ("next", "eight")])
    words_in_loss = [
        reference.WORDS[token] for token, in_loss in zip(row, reference.loss_mask(row), strict=True) if in_loss
    ]
    assert words_in_loss == ["no", "<end>", "eight", "<end>"]


def test_the_features_hold_every_pixel_once_and_a_one_hot_position():
    image = digits.load().images[0]
    features = reference.frozen_features([image]).tolist()[0]
    assert len(features) == 4 and {len(vector) for vector in features} == {20}
    for number, vector in enumerate(features):
        top, left = 4 * (number // 2), 4 * (number % 2)
        assert vector[:16] == [image[(top + y) * 8 + left + x] / 16 for y in range(4) for x in range(4)]
        assert vector[16:].index(1.0) == number and sum(vector[16:]) == 1.0


def small(seed=0):
    random = Random(seed)
    language = Decoder(len(reference.WORDS), 12, 1, 2, 16, random)
    return reference.Llava(reference.Projector(20, 12, random), language)


def test_places_and_vectors_must_be_as_many():
    model, data = small(), digits.load()
    row = reference.expand_images(reference.conversation("<image>", [("even", "")]), reference.PATCHES)
    with pytest.raises(ValueError, match="4 image tokens, but the images take 8"):
        model([row], reference.frozen_features(data.images[:2]))


def test_words_see_the_image_before_them_and_no_other_row():
    model, images = small(), digits.load().images
    rows = [reference.expand_images(reference.conversation("<image>", [("even", "")]), reference.PATCHES)] * 2
    with no_grad():
        one = model(rows, reference.frozen_features([images[0], images[1]])).tolist()
        other = model(rows, reference.frozen_features([images[0], images[2]])).tolist()
    assert one[0] == other[0]
    assert one[1][0] == other[1][0]  # before the image
    assert max(abs(a - b) for a, b in zip(one[1][-1], other[1][-1], strict=True)) > 1e-3


def test_each_stage_moves_what_it_should(monkeypatch):
    model, data, random = small(), digits.load(), Random(0)
    monkeypatch.setattr(reference, "ROWS", 2)

    def weights(part):
        return [list(weight.data) for weight in part.parameters().values()]

    language, projector = weights(model.language_model), weights(model.projector)
    reference.train_stage(model, data, 2, 1, random)
    assert weights(model.language_model) == language and weights(model.projector) != projector
    assert len(model.parameters()) == len(language) + len(projector)  # free again
    reference.train_stage(model, data, 2, 2, random)
    assert weights(model.language_model) != language


def test_run_returns_what_it_prints_and_repeats_itself(capsys, monkeypatch):
    monkeypatch.setattr(reference, "ROWS", 2)
    first, again = (reference.run(text_steps=1, first=1, second=1, held_out_digits=6, seed=1) for _ in range(2))
    output = capsys.readouterr().out
    assert f"{first['parameters']:,} parameters" in output and "after stage 2" in output
    assert first["language_model_unchanged"] is True
    for key in ("after_first", "accuracy", "blind_accuracy", "losses"):
        assert first[key] == again[key]
    json.dumps(first)


def test_it_learns_one_batch_by_heart(monkeypatch):
    """Three digits and all that there is to say of them, in some steps on nothing else."""
    data = digits.load()
    few = data.subset([data.labels.index(name) for name in range(3)])
    monkeypatch.setattr(reference, "ROWS", 3)
    losses = reference.train_stage(small(), few, 40, 2, Random(0))
    assert losses[-1] < 0.5 * losses[0]


def test_quick_run_works_with_nothing_installed():
    done = quick_run("lessons.lesson_05_llava.reference")
    assert "after stage 1" in done.stdout and "language model unchanged by stage 1: True" in done.stdout
