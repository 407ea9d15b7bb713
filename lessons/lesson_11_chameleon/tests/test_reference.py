"""The pure-Python image tokens: patches, the codebook, rows of tokens, drawing, and training on digits."""

import json
import math
from random import Random

import pytest

from lessons.lesson_11_chameleon import reference
from shared.stdlib import digits
from shared.stdlib.tensor import Tensor
from shared.testing import has_curve, quick_run


def test_patches_are_squares_of_four_pixels_row_by_row():
    image = list(range(64))
    patches = reference.patches_of(image)
    assert len(patches) == 16 and patches[0] == (0, 1, 8, 9) and patches[1] == (2, 3, 10, 11)
    assert patches[4] == (16, 17, 24, 25) and patches[15] == (54, 55, 62, 63)
    assert reference.image_of(patches) == image
    tensor = reference.patches_to_tensor([image, image[::-1]])
    assert tensor.shape == (32, 4) and tensor.tolist()[17] == [61 / 16, 60 / 16, 53 / 16, 52 / 16]


def test_the_gradient_passes_straight_through():
    vectors = Tensor([1.0, 2.0, 3.0, 4.0], (2, 2), requires_grad=True)
    quantized = reference.straight_through(vectors, [(0.0, 5.0), (7.0, 1.0)])
    assert quantized.tolist() == [[0, 5], [7, 1]]
    (quantized * Tensor([1.0, -2.0, 3.0, 0.5], (2, 2))).sum().backward()
    assert vectors.grad == [1.0, -2.0, 3.0, 0.5]


def test_the_commitment_loss_moves_the_vectors_to_their_entries():
    vectors = Tensor([1.0, 2.0], (1, 2), requires_grad=True)
    loss = reference.commitment_loss(vectors, [(3.0, 2.0)])
    loss.backward()
    assert loss.item() == 2 and vectors.grad == [-2, 0]


def test_a_codebook_averages_its_vectors_and_restarts_dead_codes():
    codebook = reference.Codebook(2, 1, decay=0.5, restart=0.25)
    vectors = [(1.0,), (1.0,), (5.0,), (9.0,)]
    codebook.restart_dead_codes(vectors, Random(0))
    assert set(codebook.entries) <= set(vectors) and codebook.counts == [2, 2]
    codebook.entries, codebook.sums = [(1.0,), (8.0,)], [(2.0,), (16.0,)]
    codes = reference.nearest_codes(vectors, codebook.entries)
    assert codes == [0, 0, 1, 1]
    codebook.update(vectors, codes)
    assert codebook.entries == [(1.0,), (7.5,)]
    for _ in range(3):  # 2 → 1 → 0.5 → 0.25, below a quarter of 2
        codebook.update(vectors, [0] * 4)
    codebook.restart_dead_codes([(3.0,)] * 4, Random(0))
    assert codebook.entries[1] == (3.0,) and codebook.counts[1] == 2


def test_perplexity_counts_the_codes_in_effect():
    assert reference.perplexity([3, 3, 3]) == 1 and reference.perplexity([0, 1, 2, 0, 1, 2]) == pytest.approx(3)


def test_codes_out_of_range_are_refused():
    tokenizer = reference.Tokenizer(8, 2, 4, Random(0))
    assert len(tokenizer.decode([[7] * 16])[0]) == 64 and tokenizer.decode([]) == []
    with pytest.raises(ValueError, match="codes are 0 to 8; expected 0 to 7"):
        tokenizer.decode([[0] * 15 + [8]])


def test_a_row_is_a_label_and_its_codes():
    data = digits.Digits([[0] * 64] * 2, [3, 9])
    assert reference.rows_of_tokens(data, [[1, 2], [0, 4]], 5) == [[8, 1, 2], [14, 0, 4]]


def test_the_table_knows_what_each_position_has_under_each_label():
    rows = [[5, 0, 1], [5, 0, 2], [6, 4, 4]]
    expected = -(math.log(3 / 7) + math.log(2 / 7)) / 2
    assert reference.table_loss(rows, [[5, 0, 1]], 5) == pytest.approx(expected)
    assert reference.table_loss(rows, [[7, 3, 3]], 5) == pytest.approx(math.log(5))


def test_later_codes_do_not_change_earlier_logits():
    model = reference.EarlyFusion(6, 8, 2, Random(0))
    first, other = (model([[7, 1, 2, code]]).tolist() for code in (3, 4))
    assert first[:3] == other[:3] and first[3] != other[3]


def test_drawings_are_codes_and_follow_a_trained_rule():
    """Rows whose codes all are the label's number: a few steps are enough to draw them."""
    model = reference.EarlyFusion(4, 8, 2, Random(0))
    rows = [[4 + label, *[label] * 16] for label in range(4)]
    losses = reference.fit(model, lambda batch: reference.next_token_loss(model, batch), rows, 4, 60, Random(0))
    assert losses[-1] < 0.2 < 1 < losses[0]
    drawn = reference.draw(model, [0, 1, 2, 3], Random(1), 0.3)
    assert all(len(row) == 16 for row in drawn)
    assert sum(code == label for label, row in enumerate(drawn) for code in row) > 55


def test_run_returns_what_it_prints_and_repeats_itself(capsys):
    first, again = (reference.run(tokenizer_steps=6, steps=3, drawings=1, seed=1) for _ in range(2))
    output = capsys.readouterr().out
    assert f"{first['parameters']:,} parameters" in output and f"perplexity {first['perplexity']:.1f}" in output
    assert first.keys() == again.keys()
    for key in first.keys() - {"seconds"}:
        assert first[key] == again[key], key
    assert first["unexplained_variance"] > 0 and first["recognized_real"] > 0.85
    json.dumps(first)


def test_a_short_training_finds_a_codebook():
    images = digits.load().images[:200]
    tokenizer, random = reference.Tokenizer(16, 4, 8, Random(0)), Random(0)
    losses = reference.fit(tokenizer, lambda batch: tokenizer.loss(batch, random), images, 16, 100, random)
    assert losses[-1] < 0.3 * losses[0]
    codes = tokenizer.encode(images)
    assert len({code for row in codes for code in row}) >= 12
    assert reference.unexplained_variance(images, tokenizer.decode(codes)) < 0.5


def test_quick_run_works_with_nothing_installed():
    printed = quick_run("lessons.lesson_11_chameleon.reference").stdout
    assert "cross-entropy of held-out codes" in printed and has_curve(printed)
