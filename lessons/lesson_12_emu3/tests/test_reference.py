"""The pure-Python guidance and DPO: exact probabilities, guided sampling, tokens, training."""

import json
import math
from random import Random

import pytest

from lessons.lesson_12_emu3 import reference
from shared.testing import has_curve, quick_run


@pytest.mark.parametrize("label", [0, 1, 2, None])
def test_the_probabilities_of_all_images_add_up_to_one(label):
    assert math.fsum(reference.prefix_probability(image, label) for image in reference.IMAGES) == pytest.approx(1)
    for codes in [(), (1,), (0, 1, 1)]:
        assert sum(reference.exact_next(codes, label)) == pytest.approx(1)


def test_probabilities_are_those_of_drawn_images():
    random, count = Random(0), 20_000
    drawn = [reference.draw_image(2, random) for _ in range(count)]
    for image in [(1, 0, 1, 0, 1, 0), (0, 1, 0, 1, 0, 0)]:
        assert drawn.count(image) / count == pytest.approx(reference.prefix_probability(image, 2), abs=0.01)


@pytest.mark.parametrize("label", [0, 2])
def test_guidance_of_one_is_the_label_and_of_zero_is_none(label):
    for scale, condition in ((1.0, label), (0.0, None)):
        expected = [reference.prefix_probability(image, condition) for image in reference.IMAGES]
        assert reference.distribution(reference.exact_next, label, scale) == pytest.approx(expected)


def test_guidance_trades_diversity_for_faithfulness():
    rows = [reference.distribution(reference.exact_next, 1, scale) for scale in (0.0, 1.0, 2.0, 4.0, 8.0)]
    faithful = [reference.faithfulness(row, 1) for row in rows]
    diverse = [reference.diversity(row) for row in rows]
    assert faithful == sorted(faithful) and diverse == sorted(diverse, reverse=True)
    assert faithful[0] == pytest.approx(1 / 3) and diverse[-1] >= 1


def test_diversity_and_distance():
    assert reference.diversity([0.25] * 4 + [0.0]) == pytest.approx(4) and reference.diversity([1.0]) == 1
    assert reference.distance([0.5, 0.5, 0], [0, 0.5, 0.5]) == 0.5


def test_a_drawn_image_has_its_rows_and_markers():
    tokens = reference.draw(reference.exact_next, 0, 2.0, Random(0))
    codes = [*tokens[:3], *tokens[4:7]]
    assert set(codes) <= {0, 1}
    rows = [codes[:3], codes[3:]]
    assert tokens == [*reference.frame_tokens([rows]), reference.END, reference.EOS]


def test_images_are_drawn_from_the_guided_distribution():
    random, count, place = Random(1), 4000, reference.IMAGES.index((1, 1, 1, 0, 0, 0))
    drawn = [reference.draw(reference.exact_next, 0, 1.5, random) for _ in range(count)]
    expected = reference.distribution(reference.exact_next, 0, 1.5)[place]
    tokens = [*reference.frame_tokens([[[1, 1, 1], [0, 0, 0]]]), reference.END, reference.EOS]
    assert drawn.count(tokens) / count == pytest.approx(expected, abs=0.03)


def test_preferences_reach_the_closed_form():
    random = Random(0)
    values = [random.random() + 0.05 for _ in range(6)]
    start, rewards = [value / sum(values) for value in values], [random.gauss(0, 1) for _ in range(6)]
    for beta in (0.3, 2.0):
        optimum = reference.closed_form(start, rewards, beta)
        assert sum(optimum) == pytest.approx(1)
        assert reference.optimize_preferences(start, rewards, beta, 500) == pytest.approx(optimum, abs=1e-6)
        assert reference.distance(reference.optimize_preferences(start, rewards, beta, 0), start) < 1e-12


def test_the_network_learns_both_distributions():
    random = Random(0)
    model = reference.Predictor(16, random)
    before = model.next_of()
    optimizer = reference.AdamW(model.parameters().values(), 0.02, betas=(0.9, 0.99))
    reference.train(model, lambda _: reference.next_code_loss(model, 16, 0.3, random), optimizer, 250)
    after = model.next_of()
    for label in (0, 1, 2, None):
        expected = [reference.prefix_probability(image, label) for image in reference.IMAGES]
        distances = [
            reference.distance(reference.distribution(of, label or 0, 0.0 if label is None else 1.0), expected)
            for of in (before, after)
        ]
        assert distances[1] < 0.75 * distances[0], (label, distances)


def test_run_returns_what_it_prints_and_repeats_itself(capsys):
    first, again = (reference.run(steps=3, seed=1) for _ in range(2))
    output = capsys.readouterr().out
    assert f"{first['reward_before']:.2f} → {first['reward_after']:.2f}" in output
    assert first.keys() == again.keys()
    for key in first.keys() - {"seconds"}:
        assert first[key] == again[key], key
    assert first["reward_after"] > first["reward_before"] and first["dpo_distance"] < 1e-3
    json.dumps(first)


def test_quick_run_works_with_nothing_installed():
    printed = quick_run("lessons.lesson_12_emu3.reference").stdout
    assert "distance from the closed form" in printed and has_curve(printed)
