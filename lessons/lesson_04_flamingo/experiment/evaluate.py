"""Evaluation: accuracy by the number of examples, cross-entropy of plain text, gate values, and exact checks."""

import math
from collections.abc import Sequence
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model import LanguageModel, has_previous_token, pack_documents
from lessons.lesson_00_foundations.decoder.model.evaluation import best_choosing, episode_accuracies
from lessons.lesson_04_flamingo import reference
from lessons.lesson_04_flamingo.experiment.data import (
    ATTRIBUTE_VALUES,
    ATTRIBUTES,
    EncodedScenes,
    EpisodeBatch,
    episode_lines,
    tokenize_episodes,
)
from lessons.lesson_04_flamingo.model import (
    Flamingo,
    FlamingoConfig,
    ResamplerConfig,
    cross_attention_matrix,
    latest_image_index,
)
from shared.course.context import RunContext
from shared.tokenizers import Tokenizer
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.transformer import DecoderConfig

SHOTS = tuple(range(9))
MIXED_SHOTS = (1, 4, 8)


# ── Accuracy by the number of examples ────────────────────────────────────────────────────────────────────────────────


def text_accuracies(language_model: LanguageModel, tokenizer: Tokenizer, seed: int, count: int) -> dict[str, float]:
    """Return accuracies on the same task in text, with held-out rules, by the number of examples.

    text        the language model alone, which gets the attributes as words
    best_guess  the optimal guess: before any example, the rule is unknown
    """
    accuracies = episode_accuracies(language_model, tokenizer, "choosing", TEST_SEED + seed, held_out=True, count=count)
    return _by_shots("text", accuracies) | _by_shots("best_guess", best_choosing(TEST_SEED + seed))


def image_accuracies(
    model: Flamingo,
    tokenizer: Tokenizer,
    training_scenes: EncodedScenes,
    encoded: EncodedScenes,
    seed: int,
    count: int,
) -> dict[str, float]:
    """Return accuracies on new images, `encoded`, by the number of examples.

    Each run has test episodes of its own, so that several runs are measured on more episodes.

    held_out, seen  with held-out rules, and with rules of the training
    mixed           as held_out, with examples that each follow their own rule
    blind           as held_out, with the images of another episode
    single_…        for questions about one attribute: no rule is needed
    probe_…         of a linear classifier of one attribute on the image features, fitted to `training_scenes`
    """

    def sample(lines: int = len(SHOTS), **settings) -> EpisodeBatch:
        episodes = [episode_lines(encoded, TEST_SEED + seed, number, lines, **settings) for number in range(count)]
        return tokenize_episodes(episodes, tokenizer)

    return {
        **_by_shots("held_out", line_accuracies(model, encoded, sample(held_out=True))),
        **_by_shots("seen", line_accuracies(model, encoded, sample())),
        **_by_shots("blind", line_accuracies(model, encoded, sample(held_out=True), exchanged_images=True)),
        # With mixed rules the lines are examples for the last one only: each number needs episodes of that length.
        **{
            f"mixed_{shots}": line_accuracies(model, encoded, sample(shots + 1, held_out=True, mixed_rules=True))[-1]
            for shots in MIXED_SHOTS
        },
        **linear_probes(training_scenes, encoded),
        **{
            f"single_{attribute}": line_accuracies(model, encoded, sample(1, questions=[(attribute,)]))[0]
            for attribute in ATTRIBUTES
        },
    }


def linear_probes(training: EncodedScenes, test: EncodedScenes) -> dict[str, float]:
    """Return the accuracy of a linear classifier of each attribute on image features: it measures the encoder alone.

    The classifier is a least-squares fit to the mean and the maximum of each feature over the tokens.
    """

    def pool(encoded: EncodedScenes) -> Float[Tensor, "images values"]:
        tokens = encoded.image_features.double()
        return torch.cat([tokens.mean(dim=1), tokens.amax(dim=1), torch.ones(len(tokens), 1).double()], dim=1)

    accuracies = {}
    for attribute, values in ATTRIBUTE_VALUES.items():
        training_labels, test_labels = (
            torch.tensor([values.index(getattr(scene.objects[0], attribute)) for scene in encoded.scenes])
            for encoded in (training, test)
        )
        targets = torch.eye(len(values)).double()[training_labels]
        weights = torch.linalg.lstsq(pool(training), targets, driver="gelsd").solution
        predictions = (pool(test) @ weights).argmax(dim=1)
        accuracies[f"probe_{attribute}"] = (predictions == test_labels).double().mean().item()
    return accuracies


def _by_shots(name: str, accuracies: Sequence[float]) -> dict[str, float]:
    return {f"{name}_{shots}": accuracies[shots] for shots in SHOTS}


@torch.no_grad()
def line_accuracies(
    model: Flamingo, encoded: EncodedScenes, episodes: EpisodeBatch, *, exchanged_images: bool = False
) -> list[float]:
    """Return the fraction of episodes with a correct answer in every token, by the number of lines before it.

    One forward pass measures all lines: no token attends to later ones, so line k is the question of a prompt with k
    examples. Greedy generation is correct where each true token is the most likely one after the tokens before it.

    exchanged_images  use the images of the next episode: accuracy without the true images
    """
    rows, device = episodes.rows, model.embedding.weight.device
    correct = torch.zeros(len(rows.token_ids), len(episodes.answer_spans[0]))
    for batch in torch.arange(len(rows.token_ids)).split(64):
        images = rows.images[(batch + 1) % len(rows.images) if exchanged_images else batch]
        token_ids, image_features, image_index, segments = (
            part.to(device)
            for part in (
                rows.token_ids[batch],
                encoded.features_of(images),
                rows.image_index[batch],
                rows.segments[batch],
            )
        )
        predictions = model(token_ids, model.resample(image_features), image_index, segments).argmax(-1)
        hits = (predictions[:, :-1] == token_ids[:, 1:]).cpu()
        for row, number in enumerate(batch.tolist()):
            for line, (first, end) in enumerate(episodes.answer_spans[number]):
                correct[number, line] = hits[row, first - 1 : end - 1].all()
    return correct.mean(dim=0).tolist()


# ── Plain text and gates ──────────────────────────────────────────────────────────────────────────────────────────────


def text_logits(
    model: Flamingo, token_ids: Int[Tensor, "rows length"], segments: Int[Tensor, "rows length"]
) -> Float[Tensor, "rows length vocab"]:
    """Return the logits of plain text in the whole model; no token has an image to attend to."""
    resampler = model.config.resampler
    no_image = model.embedding.weight.new_zeros(len(token_ids), 1, resampler.latents, resampler.width)
    return model(token_ids, no_image, torch.full_like(token_ids, -1), segments)


@torch.no_grad()
def text_bits(model: Flamingo, documents: Sequence[Sequence[int]]) -> float:
    """Return the summed cross-entropy of plain documents in bits; the first token of each is given."""
    device = model.embedding.weight.device
    all_token_ids, all_segments = pack_documents(documents, max(map(len, documents)))
    bits = 0.0
    for token_ids, segments in zip(all_token_ids.to(device).split(32), all_segments.to(device).split(32), strict=True):
        inside = has_previous_token(segments)
        log_probabilities = text_logits(model, token_ids, segments)[:, :-1][inside].double().log_softmax(-1)
        bits -= log_probabilities.gather(1, token_ids[:, 1:][inside][:, None]).sum().item() / math.log(2)
    return bits


def gate_sizes(model: Flamingo) -> dict[str, float]:
    """Return the mean of |tanh(gate)| for each gate."""
    if model.config.gates == "none":
        return {}
    return {
        f"{name}_{layer}": getattr(cross_attention, f"{name}_gate").detach().tanh().abs().mean().item()
        for layer, cross_attention in enumerate(model.cross_attention_layers)
        for name in ("attention", "mlp")
    }


# ── Exact checks ──────────────────────────────────────────────────────────────────────────────────────────────────────

ROWS, _ = reference.pad([reference.document(labels) for labels in ([3, 1], [7, 8], [0, 6])])


@torch.no_grad()
def check_against_reference(context: RunContext) -> dict[str, float]:
    """Return differences that must be zero, or rounding errors, before any training; only the seed is used."""
    torch.manual_seed(context.seed)
    sizes = reference.Sizes()
    model = build_reference_sized(sizes)
    image_features = torch.randn(len(ROWS) * 2, 9, 22, dtype=torch.float64)
    token_ids = torch.tensor(ROWS)
    image_index = latest_image_index(token_ids, torch.zeros_like(token_ids), reference.IMAGE)
    visual_tokens = model.resample(image_features.unflatten(0, (len(ROWS), 2)))
    changed = (model(token_ids, visual_tokens, image_index) != model.language_model(token_ids)).sum().item()

    for parameter in model.parameters():
        parameter.normal_(std=0.3)
    plain = reference.build_flamingo(
        reference.build_language_model(sizes, Random(context.seed)), sizes, Random(context.seed)
    )
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    visual_tokens = model.resample(image_features.unflatten(0, (len(ROWS), 2)))
    logits = model(token_ids, visual_tokens, image_index)
    plain_index = [reference.latest_image_index(row) for row in ROWS]
    mask = to_torch(reference.cross_attention_mask(plain_index, 2, 3))[:, 0] == 0
    latent_counts = {
        model.resample(torch.randn(1, 1, patches, 22, dtype=torch.float64)).shape[2] for patches in (4, 16, 64, 256)
    }
    return {
        "changed_at_gate_zero": float(changed),
        "logit_difference": max_abs_difference(to_torch(plain(ROWS, to_stdlib(image_features))), logits),
        "mask_difference": float((mask != cross_attention_matrix(image_index, 2, 3)).sum().item()),
        "latent_counts": float(len(latent_counts)),
    }


def build_reference_sized(sizes: reference.Sizes) -> Flamingo:
    """Return the PyTorch model with the sizes of a reference, in float64."""
    resampler = ResamplerConfig(
        sizes.visual_width,
        sizes.latents,
        sizes.resampler_depth,
        sizes.resampler_heads,
        sizes.head_dim,
        qk_norm=False,
    )
    config = FlamingoConfig(resampler, cross_attention_interval=1, qk_norm=False)
    width, depth, heads, mlp_dim = sizes[:4]
    language = DecoderConfig(reference.VOCAB_SIZE, width, depth, heads, heads, mlp_dim, rotary_base=10_000.0)
    return Flamingo(config, nn.Identity(), LanguageModel(language)).double()
