"""Generated text does not depend on the cache or on the batch, and the samplers follow their definitions."""

import math

import pytest
import torch
from torch import nn

from shared.transformer import Decoder, DecoderConfig, Sampling, generate, sample, stream, token_probabilities


@pytest.fixture
def decoder():
    model = Decoder(DecoderConfig(vocab_size=17, width=16, depth=2, heads=4, kv_heads=2, mlp_dim=24))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


PROMPTS = [torch.tensor(p) for p in ([3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5], [8, 9, 7, 9, 3, 2, 3])]


def _generators(count=4):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0}, {"temperature": 0.8, "top_k": 5, "top_p": 0.9}])
def test_cached_equals_uncached_and_batched_equals_single(decoder, settings):
    sampling = Sampling(12, **settings)
    cached = generate(decoder, PROMPTS, sampling, generator=_generators())
    uncached = generate(decoder, PROMPTS, sampling, generator=_generators(), use_cache=False)
    single = [
        generate(decoder, [prompt], sampling, generator=[generator])[0]
        for prompt, generator in zip(PROMPTS, _generators(), strict=True)
    ]
    assert len({tuple(row.tolist()) for row in cached}) == len(PROMPTS)
    for a, b, c in zip(cached, uncached, single, strict=True):
        assert a.tolist() == b.tolist() == c.tolist()
        assert len(a) == 12


def test_greedy_takes_the_most_likely_token_each_time(decoder):
    prompt = PROMPTS[0]
    generated = generate(decoder, [prompt], Sampling(8))[0]
    text = prompt
    for token_id in generated:
        assert decoder(text[None])[0, -1].argmax() == token_id
        text = torch.cat([text, token_id[None]])


def test_a_text_ends_with_its_stop_token_and_the_others_continue(decoder):
    unstopped = generate(decoder, PROMPTS, Sampling(12))
    stop = unstopped[0][4].item()
    stopped = generate(decoder, PROMPTS, Sampling(12, stop_token_ids={stop}))
    for row, full in zip(stopped, unstopped, strict=True):
        expected = full.tolist()
        assert row.tolist() == (expected[: expected.index(stop) + 1] if stop in expected else expected)


class EvenAfterOdd:
    """Allow token ids of the other parity than the token before."""

    def __init__(self, prompts):
        self.last = torch.stack([prompt[-1] for prompt in prompts])

    def allowed(self):
        return (torch.arange(17) + self.last[:, None]) % 2 == 1

    def advance(self, token_ids):
        self.last = token_ids


@pytest.mark.parametrize("settings", [{}, {"temperature": 2.0}, {"temperature": 2.0, "top_k": 2}])
def test_a_constraint_excludes_tokens_at_every_step(decoder, settings):
    sampling = Sampling(12, **settings)
    rows = generate(decoder, PROMPTS, sampling, generator=_generators(), constraint=EvenAfterOdd(PROMPTS))
    for prompt, row in zip(PROMPTS, rows, strict=True):
        text = torch.cat([prompt[-1:], row])
        assert ((text[1:] + text[:-1]) % 2 == 1).all()
    free = generate(decoder, PROMPTS, sampling, generator=_generators())
    assert not all(torch.equal(*pair) for pair in zip(rows, free, strict=True))


def test_a_constraint_that_excludes_nothing_changes_nothing_and_one_that_excludes_all_is_an_error(decoder):
    constraint = EvenAfterOdd(PROMPTS)
    constraint.allowed = lambda: torch.ones(len(PROMPTS), 17, dtype=torch.bool)
    sampling = Sampling(8, temperature=1.0)
    rows = generate(decoder, PROMPTS, sampling, generator=_generators(), constraint=constraint)
    free = generate(decoder, PROMPTS, sampling, generator=_generators())
    assert all(torch.equal(*pair) for pair in zip(rows, free, strict=True))
    constraint.allowed = lambda: torch.tensor([[False], [True], [True], [True]]).expand(-1, 17)
    with pytest.raises(ValueError, match="the constraint excludes every token of a text"):
        generate(decoder, PROMPTS, sampling, constraint=constraint)


def test_settings_per_prompt_equal_separate_calls(decoder):
    values = {"temperature": [0.0, 1.0, 0.7, 1.0], "top_p": [None, None, 0.8, 0.5], "max_new_tokens": [5, 12, 1, 8]}
    together = generate(decoder, PROMPTS, Sampling(**values), generator=_generators())
    for row, (prompt, generator) in enumerate(zip(PROMPTS, _generators(), strict=True)):
        sampling = Sampling(**{name: column[row] for name, column in values.items()})
        assert together[row].tolist() == generate(decoder, [prompt], sampling, generator=[generator])[0].tolist()
    assert [len(row) for row in together] == values["max_new_tokens"]


def test_stream_yields_each_token_and_none_after_a_row_has_ended(decoder):
    sampling = Sampling([5, 12, 1, 8])
    texts = generate(decoder, PROMPTS, sampling)
    steps = list(stream(decoder, PROMPTS, sampling))
    assert len(steps) == 12
    for row, text in enumerate(texts):
        assert [step[row] for step in steps] == text.tolist() + [None] * (12 - len(text))


def test_stream_computes_step_by_step_and_can_be_closed(decoder):
    gradients = []
    decoder.train()
    decoder.blocks[0].register_forward_hook(lambda *_: gradients.append(torch.is_grad_enabled()))
    steps = stream(decoder, PROMPTS, Sampling(12))
    next(steps)
    next(steps)
    assert gradients == [False, False], "two forward passes, and no gradients kept"
    assert torch.is_grad_enabled(), "between the steps the caller's setting holds"
    steps.close()
    assert decoder.training


def test_embedded_prompts_give_the_same_text_as_token_ids(decoder):
    embedded = [decoder.embedding(prompt) for prompt in PROMPTS]
    sampling = Sampling(6)
    for a, b in zip(generate(decoder, embedded, sampling), generate(decoder, PROMPTS, sampling), strict=True):
        assert a.tolist() == b.tolist()


def test_the_same_seed_gives_the_same_text(decoder):
    def texts(seed):
        generator = torch.Generator().manual_seed(seed)
        return [row.tolist() for row in generate(decoder, PROMPTS, Sampling(12, temperature=1.0), generator=generator)]

    assert texts(1) == texts(1) != texts(2)


def test_generate_evaluates_and_restores_training_mode(decoder):
    decoder.train()
    modes = []
    decoder.blocks[0].register_forward_hook(lambda block, *_: modes.append(block.training))
    generate(decoder, PROMPTS, Sampling(2))
    assert decoder.training
    assert modes == [False, False]


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    logits = torch.randn(50, 12) * 2
    probabilities = logits.softmax(-1)
    for p in (0.1, 0.5, 0.9, 0.999):
        nucleus = token_probabilities(logits, top_p=p) > 0
        for row, keep in zip(probabilities, nucleus, strict=True):
            mass = row[keep].sum()
            assert mass >= p - 1e-6
            assert mass - row[keep].min() < p, "one token fewer would have reached it too"
            assert keep.all() or row[keep].min() >= row[~keep].max()
    torch.testing.assert_close(token_probabilities(logits, top_p=1.0), probabilities)


def test_top_k_keeps_k_and_all_adds_up_to_one():
    logits = torch.randn(50, 12)
    probabilities = token_probabilities(logits, top_k=3)
    assert ((probabilities > 0).sum(-1) == 3).all()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(50))
    torch.testing.assert_close(token_probabilities(logits, top_k=99), logits.softmax(-1))


def test_a_low_temperature_is_greedy():
    logits = torch.randn(200, 12)
    assert (sample(logits, temperature=1e-4) == logits.argmax(-1)).all()
    assert (sample(logits, temperature=1.0, top_k=1) == logits.argmax(-1)).all()
    assert (sample(logits, temperature=1.0, top_p=1e-6) == logits.argmax(-1)).all()


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-320, 1e-45, 1e-38, 1e-30, 1e-9])
def test_a_temperature_too_small_for_32_bits_is_greedy(decoder, temperature):
    logits = torch.randn(200, 12) * 50
    one_hot = nn.functional.one_hot(logits.argmax(-1), 12).float()
    assert token_probabilities(logits, temperature=temperature).equal(one_hot)
    assert sample(logits, temperature=temperature).equal(logits.argmax(-1))
    # Beside rows with other temperatures too.
    mixed = [temperature, 1.0] * 100
    assert token_probabilities(logits, temperature=mixed, top_p=0.9)[::2].equal(one_hot[::2])
    assert sample(logits, temperature=mixed)[::2].equal(logits.argmax(-1)[::2])
    sampled = generate(decoder, PROMPTS, Sampling(6, temperature=temperature), generator=_generators())
    assert [row.tolist() for row in sampled] == [row.tolist() for row in generate(decoder, PROMPTS, Sampling(6))]


@pytest.mark.parametrize("top_p", [5e-324, 1e-320, 1e-46, 1e-38, 1e-12])
def test_the_most_likely_token_stays_however_small_top_p_is(decoder, top_p):
    logits = torch.randn(200, 12)
    one_hot = nn.functional.one_hot(logits.argmax(-1), 12).float()
    assert token_probabilities(logits, top_p=top_p).equal(one_hot)
    assert sample(logits, top_p=top_p).equal(logits.argmax(-1))
    sampled = generate(decoder, PROMPTS, Sampling(6, temperature=1.0, top_p=top_p), generator=_generators())
    assert [row.tolist() for row in sampled] == [row.tolist() for row in generate(decoder, PROMPTS, Sampling(6))]


def test_sample_frequencies_match_the_probabilities():
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0])
    drawn = sample(logits.expand(40_000, 4), temperature=2.0, generator=torch.Generator().manual_seed(0))
    frequency = drawn.bincount(minlength=4) / 40_000
    torch.testing.assert_close(frequency, (logits / 2).softmax(-1), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1.0}, r"temperature is -1\.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": [0.0, math.nan]}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, r"top_p is 0\.0"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"max_new_tokens": [3, 0, 3, 3]}, "max_new_tokens is 0"),
        ({"top_p": [None, 1.5, None, None]}, r"top_p is 1\.5"),
    ],
)
def test_sampling_rejects_values_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**({"max_new_tokens": 3} | settings))
    if "max_new_tokens" not in settings:
        for function in (sample, token_probabilities):
            with pytest.raises(ValueError, match=message):
                function(torch.zeros(4, 17), **settings)


@pytest.mark.parametrize("function", [generate, stream])
@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ({"prompts": []}, {}, "at least one"),
        ({"prompts": [torch.tensor([], dtype=torch.long)]}, {}, "begin-of-text"),
        ({"generator": _generators(2)}, {}, "2 generators for 4 prompts"),
        ({}, {"temperature": [0.0, 1.0]}, "2 temperatures for 4 prompts"),
    ],
)
def test_prompts_and_values_per_prompt_must_fit(decoder, function, arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        function(decoder, **({"prompts": PROMPTS, "sampling": Sampling(3, **settings)} | arguments))
