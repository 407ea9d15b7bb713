"""Training of the part `decoder`: language models on episodes of one rule, and on episodes of mixed rules."""

from collections.abc import Sequence

import torch
from torch import Tensor

from data.toybox.documents import MIXTURE
from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.experiment.data import load_corpus, train_tokenizer
from lessons.lesson_00_foundations.decoder.experiment.evaluate import (
    HeldOutText,
    accuracies_by_examples,
    evaluate_int8,
    evaluate_ngrams,
)
from lessons.lesson_00_foundations.decoder.model import (
    LanguageModel,
    has_previous_token,
    next_token_loss,
    pack_documents,
)
from lessons.lesson_00_foundations.decoder.model.evaluation import (
    cross_entropy_bits,
    encode_documents,
    episode_accuracies,
)
from lessons.lesson_00_foundations.decoder.model.toy_decoder import CONTEXT_LENGTH, toy_decoder
from shared.course.context import RunContext
from shared.tokenizers import save_tokenizer
from shared.training import Batches, Evaluation, LossSum, TrainingConfig, curve_from_history, train

LEARNING_RATE = 8e-3
EVALUATED_EPISODES = 50
"""Number of episodes of each type evaluated during training."""


def train_decoder(
    context: RunContext,
    *,
    steps: int,
    documents: int,
    mixed: bool = False,
    mixture: Sequence[int] = MIXTURE,
    batch_size: int = 16,
    **sizes: int,
) -> dict:
    """Train on toy-world text; measure bits per byte on test documents, and accuracy by the number of examples.

    The curves of the training are measured on validation documents and validation episodes.

    mixed    each line of an episode follows its own rule
    mixture  documents of each type: `MIXTURE` or `INTERVIEW_MIXTURE` of data.toybox.documents
    sizes    of the decoder, where they differ from `toy_decoder`'s
    """
    seed = context.seed
    corpus = load_corpus(context.data, seed, documents, mixed=mixed, mixture=mixture)
    tokenizer = train_tokenizer(corpus.training)
    token_ids, segments = pack_documents(encode_documents(tokenizer, corpus.training), CONTEXT_LENGTH)
    torch.manual_seed(seed)
    model = toy_decoder(tokenizer.vocab_size, **sizes)
    validation, test = (HeldOutText.encode(tokenizer, texts) for texts in (corpus.validation, corpus.test))

    def evaluate(model: LanguageModel) -> dict[str, float]:
        naming, choosing = (
            episode_accuracies(model, tokenizer, episode_type, seed, held_out=True, count=EVALUATED_EPISODES)
            for episode_type in ("naming", "choosing")
        )
        bits = cross_entropy_bits(model, validation.documents)
        return {
            "bits_per_byte": bits / validation.bytes,
            "held_out_naming": naming[4],
            "held_out_choosing": choosing[7],
        }

    config = TrainingConfig(
        steps=steps,
        learning_rate=LEARNING_RATE,
        optimizer="muon",
        warmup_steps=steps // 10,
        betas=(0.9, 0.95),
        seed=seed,
        log_every=25,
        checkpoint_every=max(1, steps // 4),
    )
    result = train(
        model,
        Batches(token_ids, segments, batch_size=batch_size, seed=seed),
        language_model_loss,
        config,
        run=context.run_options(tokens_per_step=batch_size * CONTEXT_LENGTH),
        evaluation=Evaluation(evaluate, every=max(1, steps // 7)),
    )
    save_tokenizer(tokenizer, context.folder / "tokenizer.json")
    bits = cross_entropy_bits(model, test.documents)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": tokenizer.vocab_size,
        "training_tokens": steps * batch_size * CONTEXT_LENGTH,
        "bits_per_byte": bits / test.bytes,
        "perplexity": 2 ** (bits / test.tokens),
        "bits_per_byte_curve": curve_from_history(result.history, "evaluation/bits_per_byte"),
        "naming_curve": curve_from_history(result.history, "evaluation/held_out_naming"),
        "choosing_curve": curve_from_history(result.history, "evaluation/held_out_choosing"),
        **accuracies_by_examples(model, tokenizer, TEST_SEED + seed),
        **evaluate_int8(model, tokenizer, test),
        **evaluate_ngrams(tokenizer, corpus.training, test),
    }


def language_model_loss(model: LanguageModel, batch: tuple[Tensor, Tensor]) -> LossSum:
    """Return the cross-entropy of the predicted tokens of a batch of packed documents."""
    token_ids, segments = batch
    mean = next_token_loss(model(token_ids, segments=segments), token_ids, segments)
    return LossSum.of_mean(mean, has_previous_token(segments).sum())
