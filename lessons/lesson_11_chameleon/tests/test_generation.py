"""Interleaved generation: every image has exactly its codes, whatever the weights and the sampling."""

import pytest
import torch

from lessons.lesson_11_chameleon.model import ImageSpans, split_spans
from lessons.lesson_11_chameleon.tests.small_models import small_config, small_model
from shared.transformer import Sampling, generate

VOCABULARY = small_config().vocabulary
BEGIN, END, PLACEHOLDER = VOCABULARY.begin, VOCABULARY.end, VOCABULARY.placeholder
A, B, C, D = VOCABULARY.code_token_ids[:4]
PROMPTS = [[1, 2], [1, BEGIN], [BEGIN, A, B], [BEGIN, A, B, C, D], [BEGIN, D, C, B, A, END], [3, 3, 3, 3, 3]]


def eager_model(gain=6.0, **changes):
    """Return a model that begins many images."""
    model = small_model(**changes)
    with torch.no_grad():
        model.language_model.output.weight.mul_(gain)
        model.language_model.output.weight[BEGIN] = model.language_model.output.weight[:20].sum(dim=0)
    return model


def prompts(*rows):
    return [torch.tensor(row) for row in rows or PROMPTS]


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.0}, {"temperature": 5.0, "top_k": 2}, {"temperature": 1.0, "top_p": 0.6}]
)
def test_every_image_is_complete(settings):
    model, images = eager_model(), 0
    for seed in range(3):
        sampling = Sampling(max_new_tokens=20, **settings)
        rows = model.generate(prompts(), sampling, generator=torch.Generator().manual_seed(seed))
        assert [len(row) for row in rows] == [20] * len(PROMPTS)
        for prompt, row in zip(prompts(), rows, strict=True):
            spans = split_spans(torch.cat([prompt, row]), VOCABULARY)
            assert all(len(span.values) == 4 for span in spans if span.kind == "image")
            images += sum(span.kind == "image" for span in spans)
            assert not any((span.values == PLACEHOLDER).any() for span in spans if span.kind == "text")
    assert images > 12  # not only those of the prompts


def test_without_constraint_images_are_not_complete():
    """The same model, sampled freely: this is what the constraint prevents."""
    model = eager_model()
    rows = generate(model.language_model, prompts([1, BEGIN]), Sampling(max_new_tokens=20))
    with pytest.raises(ValueError):
        split_spans(torch.cat([torch.tensor([1, BEGIN]), rows[0]]), VOCABULARY)


def test_probabilities_of_allowed_tokens_keep_their_ratios():
    """Within an image, codes are sampled as the model's own probabilities of codes, renormalized."""
    model = small_model()
    prompt = torch.tensor([2, BEGIN])
    with torch.no_grad():
        logits = model(prompt[None], text_only=False)[0, -1, model.is_code]
    many = [prompt] * 4000
    rows = model.generate(many, Sampling(6, temperature=1.0), generator=torch.Generator().manual_seed(0))
    first = torch.stack(rows)[:, 0]
    counts = torch.bincount(first, minlength=VOCABULARY.vocab_size)
    assert counts[~model.is_code].sum() == 0
    torch.testing.assert_close(counts[model.is_code] / 4000, logits.softmax(dim=-1), atol=0.03, rtol=0)


def test_an_image_that_does_not_fit_is_not_begun():
    model, generator = eager_model(), torch.Generator().manual_seed(0)
    for limit in (1, 5, 6, 7, 11):
        rows = model.generate(prompts([1, 2]) * 60, Sampling(limit, temperature=5.0), generator=generator)
        begun = [int((row == BEGIN).sum()) for row in rows]
        assert max(begun) == limit // 6
        for row in rows:
            split_spans(row, VOCABULARY)


def test_rows_depend_neither_on_the_batch_nor_on_the_cache():
    model = eager_model()

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]

    sampling = Sampling(max_new_tokens=14, temperature=1.0)
    together = [row.tolist() for row in model.generate(prompts(), sampling, generator=generators())]
    uncached = model.generate(prompts(), sampling, generator=generators(), use_cache=False)
    assert together == [row.tolist() for row in uncached]
    pairs = zip(prompts(), generators(), strict=True)
    assert together == [model.generate([row], sampling, generator=each)[0].tolist() for row, each in pairs]
    assert len({tuple(row) for row in together}) == len(PROMPTS)


def test_a_text_ends_with_a_stop_token():
    model = eager_model()
    free = model.generate(prompts(), Sampling(max_new_tokens=20))
    stop = {int(row[10]) for row in free if row[10] < 20} | {END}
    rows = model.generate(prompts(), Sampling(max_new_tokens=20, stop_token_ids=stop))
    assert {len(row) for row in rows} != {20}
    for prompt, row, longer in zip(prompts(), rows, free, strict=True):
        places = [place for place, token_id in enumerate(row.tolist()) if token_id in stop]
        assert places == ([len(row) - 1] if len(row) < 20 else places[:1])
        assert torch.equal(row, longer[: len(row)])
        split_spans(torch.cat([prompt, row]), VOCABULARY)
    with pytest.raises(ValueError, match=rf"stop tokens \[{A}\] are codes, so that images would end early"):
        model.generate(prompts(), Sampling(max_new_tokens=20, stop_token_ids=(1, A)))


def test_text_only_has_no_codes_and_any_marker():
    model = eager_model()
    rows = model.generate(prompts(), Sampling(max_new_tokens=12, temperature=3.0), text_only=True)
    assert not any(model.is_code[row].any() for row in rows)
    assert any((row == BEGIN).any() for row in rows)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([A], f"token id {A} at place 0, outside of an image"),
        ([1, END], f"token id {END} at place 1, outside of an image"),
        ([BEGIN, A, 1], "token id 1 at place 2, after 1 of an image's 4 codes"),
        ([BEGIN, A, BEGIN], f"token id {BEGIN} at place 2, after 1 of an image's 4 codes"),
        ([BEGIN, A, END], "after 1 of an image's 4 codes"),
        ([BEGIN, A, A, A, A, A], "place 5, after 4 of an image's 4 codes"),
        ([BEGIN], "prompt 1 ends within an image that lacks 5 tokens, its end token included; max_new_tokens is 4"),
        ([PLACEHOLDER], "prompt 1 has placeholders of an image; replace them by codes"),
        ([1, 47], "prompt 1 has token ids 1 to 47; the vocabulary has 0 to 46"),
        ([-1], "prompt 1 has token ids -1 to -1"),
        ([1] * 45, "prompt 1 has 45 tokens and may get 4 more; the context is 48 tokens"),
        ([], "prompts have lengths"),
    ],
)
def test_wrong_prompts(row, message):
    assert VOCABULARY.vocab_size == 47
    model = small_model()
    row = torch.tensor(row, dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        model.generate([torch.tensor([1]), row], Sampling(max_new_tokens=4))


def test_limits_per_prompt():
    model = eager_model()
    rows = model.generate(prompts([1, 2], [1, BEGIN]), Sampling(max_new_tokens=[3, 9]))
    assert [len(row) for row in rows] == [3, 9]
    with pytest.raises(ValueError, match="3 values of max_new_tokens for 2 prompts; give one per prompt"):
        model.generate(prompts([1, 2], [1, BEGIN]), Sampling(max_new_tokens=[3, 9, 9]))
    with pytest.raises(ValueError, match="expected at least one"):
        model.generate([], Sampling(max_new_tokens=3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": float("nan")}, "temperature is nan; expected 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k is 0; expected at least 1"),
        ({"top_p": float("nan")}, "top_p is nan"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_wrong_sampling(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**{"max_new_tokens": 4} | settings)


def test_spans_of_a_sequence():
    row = torch.tensor([1, BEGIN, A, B, C, D, END, BEGIN, D, D, D, D, END, 2, 3])
    spans = [(span.kind, span.values.tolist()) for span in split_spans(row, VOCABULARY)]
    assert spans == [("text", [1]), ("image", [0, 1, 2, 3]), ("image", [3, 3, 3, 3]), ("text", [2, 3])]
    assert split_spans(row[:0], VOCABULARY) == []
    for wrong, message in (
        ([1, A], "the tokens 0 to 1 have codes or end tokens outside of an image"),
        ([END], "outside of an image"),
        ([BEGIN, A, B, C, D], "the image that begins at token 0 has no 4 codes and an end token after them"),
        ([2, BEGIN, A, B, C, 1, END], "the image that begins at token 1 has no 4 codes"),
        ([BEGIN, A, B, C, D, D, END], "has no 4 codes and an end token"),
        ([BEGIN, BEGIN, A, B, C, D, END], "the image that begins at token 0"),
        ([BEGIN], "the image that begins at token 0"),
    ):
        with pytest.raises(ValueError, match=message):
            split_spans(torch.tensor(wrong), VOCABULARY)


def test_the_constraint_follows_each_row():
    spans = ImageSpans(VOCABULARY, prompts([1], [BEGIN, A]), Sampling(max_new_tokens=9))
    assert spans.states.tolist() == [-1, 1]
    allowed = spans.allowed()
    assert allowed[0, [0, BEGIN]].all() and not allowed[0, [END, PLACEHOLDER, A]].any()
    assert torch.equal(allowed[1], VOCABULARY.is_code())
    spans.advance(torch.tensor([BEGIN, B]))
    assert spans.states.tolist() == [0, 2] and spans.tokens_left.tolist() == [8, 8]
    for _ in range(2):
        spans.advance(torch.tensor([C, C]))
    assert spans.states.tolist() == [2, 4]
    assert spans.allowed()[1].nonzero().flatten().tolist() == [END]
    spans.advance(torch.tensor([D, END]))
    assert spans.states.tolist() == [3, -1] and not spans.allowed()[1, BEGIN]  # 5 tokens are left, and 6 are needed
