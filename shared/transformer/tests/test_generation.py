"""What is written does not depend on the cache or on the company, and samplers keep what they promise."""

import pytest
import torch
from torch import nn

from shared.transformer import Decoder, DecoderConfig, generate, sample, stream, token_probabilities


@pytest.fixture
def decoder():
    made = Decoder(DecoderConfig(vocab_size=17, width=16, depth=2, heads=4, kv_heads=2, mlp_dim=24))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


PROMPTS = [torch.tensor(p) for p in ([3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5], [8, 9, 7, 9, 3, 2, 3])]


def _generators(count=4):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0}, {"temperature": 0.8, "top_k": 5, "top_p": 0.9}])
def test_cached_equals_uncached_and_batched_equals_alone(decoder, settings):
    cached = generate(decoder, PROMPTS, max_new_tokens=12, generator=_generators(), **settings)
    read_again = generate(decoder, PROMPTS, max_new_tokens=12, generator=_generators(), use_cache=False, **settings)
    alone = [
        generate(decoder, [prompt], max_new_tokens=12, generator=[own], **settings)[0]
        for prompt, own in zip(PROMPTS, _generators(), strict=True)
    ]
    assert len({tuple(row.tolist()) for row in cached}) == len(PROMPTS)
    for a, b, c in zip(cached, read_again, alone, strict=True):
        assert a.tolist() == b.tolist() == c.tolist()
        assert len(a) == 12


def test_greedy_is_the_likeliest_token_each_time(decoder):
    prompt = PROMPTS[0]
    written = generate(decoder, [prompt], max_new_tokens=8)[0]
    text = prompt
    for token in written:
        assert decoder(text[None])[0, -1].argmax() == token
        text = torch.cat([text, token[None]])


def test_text_stops_with_its_stop_token_and_the_others_go_on(decoder):
    free = generate(decoder, PROMPTS, max_new_tokens=12)
    stop = free[0][4].item()
    for written, whole in zip(generate(decoder, PROMPTS, max_new_tokens=12, stop_tokens={stop}), free, strict=True):
        expected = whole.tolist()
        assert written.tolist() == (expected[: expected.index(stop) + 1] if stop in expected else expected)


def test_each_prompt_may_have_settings_of_its_own(decoder):
    own = {"temperature": [0.0, 1.0, 0.7, 1.0], "top_p": [None, None, 0.8, 0.5], "max_new_tokens": [5, 12, 1, 8]}
    together = generate(decoder, PROMPTS, generator=_generators(), **own)
    for row, (prompt, generator) in enumerate(zip(PROMPTS, _generators(), strict=True)):
        settings = {name: values[row] for name, values in own.items()}
        assert together[row].tolist() == generate(decoder, [prompt], generator=[generator], **settings)[0].tolist()
    assert [len(row) for row in together] == own["max_new_tokens"]


def test_a_stream_tells_each_token_as_it_comes_and_none_after_a_row_has_ended(decoder):
    whole = generate(decoder, PROMPTS, max_new_tokens=[5, 12, 1, 8])
    steps = list(stream(decoder, PROMPTS, max_new_tokens=[5, 12, 1, 8]))
    assert len(steps) == 12
    for row, written in enumerate(whole):
        assert [step[row] for step in steps] == written.tolist() + [None] * (12 - len(written))


def test_a_stream_is_written_step_by_step_and_can_be_left(decoder):
    read = []
    decoder.train()
    decoder.blocks[0].register_forward_hook(lambda *_: read.append(torch.is_grad_enabled()))
    writing = stream(decoder, PROMPTS, max_new_tokens=12)
    next(writing)
    next(writing)
    assert read == [False, False], "two steps read, and no gradients kept"
    assert torch.is_grad_enabled(), "between the steps all is as it was outside"
    writing.close()
    assert decoder.training


def test_embedded_prompts_are_read_like_tokens(decoder):
    vectors = [decoder.embedding(prompt) for prompt in PROMPTS]
    for a, b in zip(
        generate(decoder, vectors, max_new_tokens=6), generate(decoder, PROMPTS, max_new_tokens=6), strict=True
    ):
        assert a.tolist() == b.tolist()


def test_the_same_seed_writes_the_same_text(decoder):
    def write(seed):
        generator = torch.Generator().manual_seed(seed)
        rows = generate(decoder, PROMPTS, max_new_tokens=12, temperature=1.0, generator=generator)
        return [row.tolist() for row in rows]

    assert write(1) == write(1) != write(2)


def test_generate_evaluates_and_leaves_the_decoder_as_it_was(decoder):
    decoder.train()
    modes = []
    decoder.blocks[0].register_forward_hook(lambda block, *_: modes.append(block.training))
    generate(decoder, PROMPTS, max_new_tokens=2)
    assert decoder.training
    assert modes == [False, False]


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    logits = torch.randn(50, 12) * 2
    whole = logits.softmax(-1)
    for p in (0.1, 0.5, 0.9, 0.999):
        kept = token_probabilities(logits, top_p=p) > 0
        for row, keep in zip(whole, kept, strict=True):
            mass = row[keep].sum()
            assert mass >= p - 1e-6
            assert mass - row[keep].min() < p, "one token fewer would have reached it too"
            assert keep.all() or row[keep].min() >= row[~keep].max()
    torch.testing.assert_close(token_probabilities(logits, top_p=1.0), whole)


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


def test_samples_come_as_often_as_their_probability_says():
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0])
    drawn = sample(logits.expand(40_000, 4), temperature=2.0, generator=torch.Generator().manual_seed(0))
    frequency = drawn.bincount(minlength=4) / 40_000
    torch.testing.assert_close(frequency, (logits / 2).softmax(-1), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompts": []}, "at least one"),
        ({"prompts": [torch.tensor([], dtype=torch.long)]}, "begin-of-text"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"generator": _generators(2)}, "2 generators for 4 prompts"),
        ({"temperature": [0.0, 1.0]}, "2 temperatures for 4 prompts"),
        ({"max_new_tokens": [3, 0, 3, 3]}, "max_new_tokens is 0"),
        ({"top_p": [None, 1.5, None, None]}, "top_p is 1.5"),
    ],
)
def test_settings_out_of_range_are_told(decoder, settings, said):
    with pytest.raises(ValueError, match=said):
        generate(decoder, **({"prompts": PROMPTS, "max_new_tokens": 3} | settings))
