"""Packing and the loss, the n-gram baseline, int8 weights, and the measures behind the claims."""

import math
from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from data.toybox import documents as text
from data.toybox import episodes as toy_episodes
from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.experiment import evaluate as evaluate_module
from lessons.lesson_00_foundations.decoder.experiment import train as train_module
from lessons.lesson_00_foundations.decoder.experiment.data import load_corpus, train_tokenizer
from lessons.lesson_00_foundations.decoder.experiment.evaluate import (
    HeldOutText,
    accuracies_by_examples,
    common_prefix_fraction,
    evaluate_ngrams,
)
from lessons.lesson_00_foundations.decoder.experiment.figures import attention_maps
from lessons.lesson_00_foundations.decoder.experiment.int8 import memory_bytes, quantize_model
from lessons.lesson_00_foundations.decoder.experiment.ngram import KneserNey
from lessons.lesson_00_foundations.decoder.experiment.speed import measure_speed
from lessons.lesson_00_foundations.decoder.experiment.train import language_model_loss, train_decoder
from lessons.lesson_00_foundations.decoder.model import LanguageModel, next_token_loss, pack_documents
from lessons.lesson_00_foundations.decoder.model.evaluation import (
    cross_entropy_bits,
    encode_documents,
    episode_accuracies,
    greedy_matches,
)
from lessons.lesson_00_foundations.decoder.model.toy_decoder import toy_decoder
from shared.course.context import RunContext
from shared.tokenizers import load_tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN
from shared.transformer import DecoderConfig, Sampling, generate

# ── Packing and the loss ──────────────────────────────────────────────────────────────────────────────────────────────


def test_every_document_is_packed_once():
    documents = [[number] * (1 + number % 7) for number in range(1, 200)] + [list(range(300, 325))]
    tokens, segments = pack_documents(documents, 10)
    packed = Counter(tokens[segments >= 0].tolist())
    assert packed == Counter(token for document in documents for token in document)
    assert (segments >= 0).float().mean() > 0.9
    # The document that is longer than a row is cut into pieces, in order.
    rows = [row for row in tokens.tolist() if row[0] >= 300]
    assert rows[:2] == [list(range(300, 310)), list(range(310, 320))]


def test_a_packed_document_is_processed_as_if_alone():
    model = toy_decoder(50).double()
    documents = [torch.randint(50, (length,)).tolist() for length in (9, 4, 7, 5)]
    tokens, segments = pack_documents(documents, 28)
    logits = model(tokens, segments=segments)
    for segment, document in enumerate(documents):
        alone = model(torch.tensor([document]))[0]
        torch.testing.assert_close(logits[segments == segment], alone, atol=1e-9, rtol=0)
    nats = sum(
        F.cross_entropy(model(torch.tensor([d]))[0, :-1], torch.tensor(d[1:]), reduction="sum") for d in documents
    )
    assert next_token_loss(logits, tokens, segments).item() == pytest.approx(nats.item() / 21, rel=1e-9)
    assert language_model_loss(model, (tokens, segments)).mean().item() == pytest.approx(nats.item() / 21, rel=1e-9)
    # In rows of nine tokens, the documents of four and five share one.
    assert cross_entropy_bits(model, documents) == pytest.approx(nats.item() / math.log(2), rel=1e-6)


def test_initial_weights_have_the_documented_std():
    torch.manual_seed(0)
    model = LanguageModel(DecoderConfig(200, 256, 4, 4, 2, 512, tied=True))
    block = model.blocks[1]
    for weight, std in (
        (block.attention.query.weight, 256**-0.5),
        (block.mlp.up.weight, 256**-0.5),
        (block.mlp.down.weight, 512**-0.5 / 8**0.5),  # eight additions to the residual stream
        (block.attention.output.weight, 256**-0.5 / 8**0.5),
        (model.embedding.weight, 0.1),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.05)


# ── The baseline ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_kneser_ney_is_a_distribution_after_any_context(order):
    documents = [torch.randint(6, (30,)).tolist() for _ in range(10)]
    model = KneserNey(documents, 8, order=order)
    for context in ([], [0], [7], [1, 2], [3, 3, 3], documents[0][:4], [5, 0, 1, 4, 2, 2]):
        probabilities = [model.probability(context, token) for token in range(8)]
        assert sum(probabilities) == pytest.approx(1.0) and min(probabilities) > 0


def test_kneser_ney_computed_by_hand():
    model = KneserNey([[0, 1, 2, 1, 2, 1, 3]], 4, order=2, discount=0.5)
    # After 1: 2, 2, 3. The lower order counts contexts: 1 follows {0, 2}, 2 follows {1}, 3 follows {1}; 0 is first.
    lower_order = (1 - 0.5) / 5 + 0.5 * 4 / 5 / 4
    assert model.probability([1], 2) == pytest.approx((2 - 0.5) / 3 + 0.5 * 2 / 3 * lower_order)
    # 1 occurs three times and 2 twice, but both count by the number of contexts.
    assert model.probability([], 1) == pytest.approx((2 - 0.5) / 5 + 0.5 * 4 / 5 / 4)
    assert model.document_bits([0, 1]) == pytest.approx(-math.log2(model.probability([0], 1)))


def test_longer_contexts_help_on_text_with_long_dependencies():
    documents = [[0, 1, 2, 3, 1, 4] * 5 for _ in range(3)]
    bits = [KneserNey(documents, 5, order=order).document_bits([0, 1, 2, 3, 1, 4] * 2) for order in (1, 2, 3)]
    assert bits[0] > bits[1] > bits[2]


def test_orders_and_discounts_out_of_range_are_errors():
    for wrong in ({"order": 0}, {"discount": 1.0}, {"discount": 0.0}):
        with pytest.raises(ValueError, match=r"order=.* discount="):
            KneserNey([[0]], 2, **wrong)


# ── int8 weights ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tied", [True, False])
def test_an_int8_model_is_nearly_equal_in_a_quarter_of_the_bytes(tied):
    model = LanguageModel(DecoderConfig(300, 64, 2, 4, 2, 160, tied=tied)).eval()
    small = quantize_model(model)
    tokens = torch.randint(300, (2, 20))
    with torch.no_grad():
        full, rounded = model(tokens), small(tokens)
    assert 0 < (full - rounded).abs().max() < 0.05 * full.abs().max()
    assert 3.4 < memory_bytes(model) / memory_bytes(small) < 4
    assert (small.output.values.data_ptr() == small.embedding.values.data_ptr()) is tied
    assert not list(small.blocks[0].attention.parameters()) and model.output.weight.dtype == torch.float32


def test_generation_runs_on_int8_weights_with_a_cache():
    small = quantize_model(toy_decoder(60))
    prompts = [torch.tensor([1, 2, 3]), torch.tensor([4])]
    with_cache, without = (generate(small, prompts, Sampling(6), use_cache=use) for use in (True, False))
    assert all(torch.equal(*pair) for pair in zip(with_cache, without, strict=True))


def test_layers_with_a_bias_are_errors():
    model = toy_decoder(20)
    model.blocks[0].attention.query = torch.nn.Linear(64, 64)
    with pytest.raises(ValueError, match="query has a bias"):
        quantize_model(model)


def test_the_common_prefix_ends_at_the_first_difference():
    texts = [torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6])]
    others = [torch.tensor([1, 9, 3, 4]), torch.tensor([5, 6, 7])]
    assert common_prefix_fraction(texts, others) == pytest.approx((1 + 2) / (4 + 3))
    assert common_prefix_fraction(texts, texts) == 1.0


# ── Measures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(text.documents("train", 0, 300))


class Oracle(torch.nn.Module):
    """Predict every next token correctly, except at the given (row, position) pairs."""

    def __init__(self, rows, wrong):
        super().__init__()
        self.norm = torch.nn.LayerNorm(1)
        self.rows, self.wrong = rows, wrong

    def forward(self, tokens):
        following = torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)
        for row, position in self.wrong:
            following[row, position - 1] += 1
        return F.one_hot(following, int(following.max()) + 2).float()


def test_only_the_wrongly_predicted_token_does_not_match():
    rows = [[3, 1, 4, 1, 5], [9, 2, 6]]
    matches = greedy_matches(Oracle(rows, [(0, 3), (1, 1)]), rows)
    assert matches[0].tolist() == [False, True, True, False, True]
    assert matches[1, :3].tolist() == [False, False, True]


def test_accuracy_by_examples_counts_complete_answers(tokenizer):
    always = Oracle(None, [])
    measured = accuracies_by_examples(always, tokenizer, 0)
    assert all(value == 1.0 for name, value in measured.items() if not name.endswith("by_shots"))
    best = measured["best_choosing_by_shots"]
    assert 0.35 < best[0] < 0.5 < best[1] < best[4] < best[11] < 1
    assert {f"held_out_naming_{shots}" for shots in (0, 1, 2, 4, 7)} <= measured.keys()
    # One wrong token, the first of the third answer of the first episode, costs one of ten answers after two examples.
    lines = toy_episodes.episode_at("naming", "validation", 0, 0, held_out=True)
    before = "".join(line.text for line in lines[:2]) + lines[2].prompt
    position = 1 + len(tokenizer.encode(before))
    accuracies = episode_accuracies(Oracle(None, [(0, position)]), tokenizer, "naming", 0, held_out=True, count=10)
    assert accuracies == [1.0, 1.0, 0.9, *[1.0] * (toy_episodes.LINES["naming"] - 3)]


def test_the_tokenizer_has_a_token_for_every_word_and_decodes_the_text(tokenizer):
    document = text.document_at("train", 0, 5)
    token_ids = encode_documents(tokenizer, [document])[0]
    assert token_ids[0] == tokenizer.special_tokens[BEGIN_TOKEN] and tokenizer.decode(token_ids[1:]) == document
    words = [word for word in document.split() if word.isalpha()]
    assert all(len(tokenizer.encode(f" {word}")) == 1 for word in words)


def test_the_baseline_is_measured_at_its_best_order(tokenizer):
    documents = text.documents("train", 0, 60)
    test = HeldOutText.encode(tokenizer, documents[:5])._replace(bytes=100)
    best = evaluate_ngrams(tokenizer, documents, test)
    training = encode_documents(tokenizer, documents)
    each = [
        sum(map(KneserNey(training, tokenizer.vocab_size, order=n).document_bits, test.documents)) for n in (4, 6, 8)
    ]
    assert best["ngram_bits_per_byte"] == pytest.approx(min(each) / 100) and best["ngram_order"] == 4 + 2 * each.index(
        min(each)
    )


def test_real_text_is_added_and_part_of_it_is_held_out(tmp_path):
    (tmp_path / "book.txt").write_text("".join(f"Sentence number {number} of this book.\n" for number in range(400)))
    corpus = load_corpus(f"folder:{tmp_path}", 0, 100)
    real, validation, test = ({d for d in documents if d.startswith("Sentence")} for documents in corpus)
    assert len(real) > 20 and len(validation) >= 1 and len(test) >= 1
    assert not real & validation and not real & test and not validation & test
    assert len([d for d in corpus.training if d not in real]) == 100


def test_claims_are_measured_on_other_documents_and_episodes_than_settings_are_chosen_on(tmp_path, monkeypatch):
    first, second = (load_corpus("digits", seed, 50) for seed in (0, 1))
    assert len(first.validation) == len(first.test) == 400
    assert all(first.test != other for other in (first.validation, second.validation, second.test))
    seeds: dict[str, set[int]] = {"during": set(), "after": set()}
    for name, module in (("during", train_module), ("after", evaluate_module)):

        def record(model, tokenizer, episode_type, seed, *, held_out, name=name, **_):
            seeds[name].add(seed)
            return episode_accuracies(model, tokenizer, episode_type, seed, held_out=held_out, count=2)

        monkeypatch.setattr(module, "episode_accuracies", record)
    context = RunContext(seed=0, data="toybox", device="cpu", folder=tmp_path)
    train_decoder(context, steps=1, documents=60, batch_size=2, width=16, mlp_dim=16, depth=1)
    assert seeds == {"during": {0}, "after": {TEST_SEED}}


def test_an_arm_trains_and_writes_the_files_of_a_checkpoint(tmp_path):
    context = RunContext(seed=0, data="toybox", device="cpu", folder=tmp_path)
    measured = train_decoder(context, steps=2, documents=60, batch_size=2, width=16, mlp_dim=16, depth=1)
    assert 0 < measured["ngram_bits_per_byte"] < measured["bits_per_byte"] < 8
    assert measured["vocabulary"] == load_tokenizer(tmp_path / "tokenizer.json").vocab_size
    assert measured["int8_bytes"] < measured["bytes"] / 2.5


def test_speed_is_measured_for_all_variants(tmp_path):
    context = RunContext(seed=0, data="", device="cpu", folder=tmp_path)
    measured = measure_speed(context, width=64, depth=1, new_tokens=3)
    assert measured["cache_speedup"] > 0 and measured["int8_speedup"] > 0 and 3.5 < measured["memory_saving"] <= 4


def test_the_attention_maps_are_those_of_the_model():
    model = toy_decoder(50)
    tokens = torch.randint(50, (1, 9))
    maps = attention_maps(model, tokens)
    assert maps.shape == (3, 4, 9, 9)
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 4, 9))
    assert maps.triu(1).max() == 0
    # The first block's attention output, computed from its map.
    block = model.blocks[0].attention
    values = block.value(model.blocks[0].attention_norm(model.embedding(tokens))).unflatten(-1, (2, 16)).transpose(1, 2)
    attended = maps[0] @ values[0].repeat_interleave(2, dim=0)
    block.output.register_forward_pre_hook(
        lambda _, inputs: torch.testing.assert_close(inputs[0][0], attended.transpose(0, 1).flatten(1))
    )
    model(tokens)
