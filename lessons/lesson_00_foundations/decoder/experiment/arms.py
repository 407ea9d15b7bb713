"""The arms of the decoder: trained on episodes of one rule and of mixed rules, each beside n-grams that count the same tokens."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from data.datasets.text_folder import text_pieces
from data.toybox import documents as text
from data.toybox.episodes import EPISODES as EPISODE_TYPES
from lessons.lesson_00_foundations.decoder.experiment.ngram import KneserNey
from lessons.lesson_00_foundations.decoder.experiment.quantized import bytes_of, quantized
from lessons.lesson_00_foundations.decoder.experiment.speed import agreement
from lessons.lesson_00_foundations.decoder.model import LanguageModel, next_token_loss, pack_documents
from lessons.lesson_00_foundations.decoder.model.evaluation import (
    best_choosing,
    cross_entropy_bits,
    encode_documents,
    episode_accuracies,
)
from lessons.lesson_00_foundations.decoder.model.toy_decoder import CONTEXT_LENGTH, toy_decoder
from shared.tokenizers import Tokenizer, save_tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS
from shared.training import Batches, Evaluation, RunOptions, TrainingConfig, curve_from_history, train
from shared.transformer import Sampling, generate

VOCABULARY = 1000
"""At most; the toy world has fewer words."""
LEARNING_RATE = 8e-3
SHOTS = (0, 1, 2, 4, 7)
ORDERS = (4, 6, 8)
HELD_OUT_DOCUMENTS = 400
TOKENIZER_DOCUMENTS = 4000


def tokenizer_of(documents: Sequence[str]) -> Tokenizer:
    """Byte pair encoding learned from the first documents; a pair that stands in one place only is not joined."""
    return Tokenizer.train(documents[:TOKENIZER_DOCUMENTS], VOCABULARY, special_tokens=SPECIAL_TOKENS, min_frequency=2)


def train_decoder(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    documents: int,
    mixed: bool = False,
    mixture: Sequence[int] = text.MIXTURE,
    batch_size: int = 16,
    **sizes: int,
) -> dict:
    """Train on toy-world text; measure bits a byte on new text and accuracy by the number of examples.

    mixture  of each kind of document: `text.MIXTURE`, or `text.INTERVIEW_MIXTURE`
    """
    train_documents, test_documents = corpus(data, seed, documents, mixed, mixture)
    tokenizer = tokenizer_of(train_documents)
    rows, segments = pack_documents(encode_documents(tokenizer, train_documents), CONTEXT_LENGTH)
    torch.manual_seed(seed)
    model = toy_decoder(tokenizer.vocab_size, **sizes)
    test = encode_documents(tokenizer, test_documents)
    test_bytes = sum(len(document.encode()) for document in test_documents)
    config = TrainingConfig(
        steps=steps, learning_rate=LEARNING_RATE, optimizer="muon", warmup_steps=steps // 10, betas=(0.9, 0.95), seed=seed,
        log_every=25, checkpoint_every=max(1, steps // 4),
    )  # fmt: skip
    result = train(
        model,
        Batches(rows, segments, batch_size=batch_size, seed=seed),
        loss_of,
        config,
        run=RunOptions(
            folder=folder, resume=resume, device=device, label=folder.name, tokens_per_step=batch_size * CONTEXT_LENGTH
        ),
        evaluation=Evaluation(
            lambda model: {
                "bits_per_byte": cross_entropy_bits(model, test) / test_bytes,
                "held_out_naming": episode_accuracies(model, tokenizer, "naming", seed, held_out=True, count=50)[4],
                "held_out_choosing": episode_accuracies(model, tokenizer, "choosing", seed, held_out=True, count=50)[7],
            },
            every=max(1, steps // 7),
        ),
    )
    save_tokenizer(tokenizer, folder / "tokenizer.json")
    bits = cross_entropy_bits(model, test)
    tokens = sum(len(document) - 1 for document in test)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": tokenizer.vocab_size,
        "training_tokens": steps * batch_size * CONTEXT_LENGTH,
        "bits_per_byte": bits / test_bytes,
        "perplexity": 2 ** (bits / tokens),
        "bits_per_byte_curve": curve_from_history(result.history, "evaluation/bits_per_byte"),
        "naming_curve": curve_from_history(result.history, "evaluation/held_out_naming"),
        "choosing_curve": curve_from_history(result.history, "evaluation/held_out_choosing"),
        **accuracies_by_shots(model, tokenizer, seed),
        **eight_bits(model, tokenizer, test, test_bytes),
        **ngram_bits(tokenizer, train_documents, test, test_bytes),
    }


def corpus(
    data: str, seed: int, documents: int, mixed: bool = False, mixture: Sequence[int] = text.MIXTURE
) -> tuple[list[str], list[str]]:
    """Training and held-out documents; where `data` names a folder of real text, half of each is from there."""
    training = text.documents("train", seed, documents, mixed=mixed, mixture=mixture)
    held_out = text.documents("validation", seed, HELD_OUT_DOCUMENTS, mixed=mixed, mixture=mixture)
    if data.startswith("folder:") or data == "text_small":
        pieces = text_pieces(data)
        # The last twentieth is held out: a piece of the same books, but no page that was read.
        kept = len(pieces) - max(1, len(pieces) // 20)
        real, new = pieces[:kept][:documents], pieces[kept:][:HELD_OUT_DOCUMENTS]
        # One after the other, so that the tokenizer and the n-grams, which read the first ones, meet both.
        training = [document for pair in zip(training, real, strict=False) for document in pair] + training[len(real) :]
        held_out = held_out + new
    return training, held_out


def loss_of(model: LanguageModel, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean surprise over the packed documents of a batch."""
    tokens, segments = batch
    return next_token_loss(model(tokens, segments=segments), tokens, segments)


def accuracies_by_shots(model: nn.Module, tokenizer: Tokenizer, seed: int) -> dict[str, float | list[float]]:
    """Accuracy by the number of examples, of both kinds of episode, with seen rules and with held-out ones."""
    measured: dict[str, float | list[float]] = {}
    for kind in EPISODE_TYPES:
        for held_out in (False, True):
            name = f"{'held_out' if held_out else 'seen'}_{kind}"
            found = episode_accuracies(model, tokenizer, kind, seed, held_out=held_out)
            measured[f"{name}_by_shots"] = found
            measured |= {f"{name}_{shots}": found[shots] for shots in SHOTS}
    return measured | {"best_choosing_by_shots": best_choosing(seed)}


# ── In 8 bits ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def eight_bits(
    model: LanguageModel, tokenizer: Tokenizer, test: Sequence[Sequence[int]], test_bytes: int
) -> dict[str, float | int]:
    """How the trained model changes when its weights are stored in 8 bits: what it writes, how it does, what it takes."""
    small, device = quantized(model), model.norm.weight.device
    # The first third of held-out documents, to go on with; to the end of a line or for 24 tokens.
    prompts = [torch.tensor(document[: 1 + len(document) // 3], device=device) for document in test[:64]]
    stops = [token for token in range(tokenizer.vocab_size) if b"\n" in tokenizer.decode_bytes([token])]
    full, rounded = (generate(m, prompts, Sampling(24, stop_token_ids=stops)) for m in (model, small))
    tokens, segments = (part.to(device) for part in pack_documents(test[:100], max(map(len, test))))
    with torch.no_grad():
        choices, rounded_choices = (m(tokens, segments=segments)[segments >= 0].argmax(-1) for m in (model, small))
    return {
        "int8_same_choices": (choices == rounded_choices).float().mean().item(),
        "int8_agreement": agreement(full, rounded),
        "int8_bits_per_byte": cross_entropy_bits(small, test) / test_bytes,
        "bytes": bytes_of(model),
        "int8_bytes": bytes_of(small),
    }


# ── The rival ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def ngram_bits(
    tokenizer: Tokenizer, documents: Sequence[str], test: Sequence[Sequence[int]], test_bytes: int
) -> dict[str, float | int]:
    """Bits a byte, and perplexity, of Kneser–Ney at the order that does best on the held-out text itself.

    That choice is the n-gram's advantage, and so are its documents: all of them, though the decoder may stop before the last.
    """
    counted = encode_documents(tokenizer, documents)
    tokens = sum(len(document) - 1 for document in test)
    bits = {order: sum(map(KneserNey(counted, tokenizer.vocab_size, order=order).surprise, test)) for order in ORDERS}
    best = min(bits, key=bits.get)
    return {
        "ngram_order": best,
        "ngram_bits_per_byte": bits[best] / test_bytes,
        "ngram_perplexity": 2 ** (bits[best] / tokens),
    }
