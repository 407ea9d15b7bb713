"""Evaluation on scenes with unseen color–shape combinations, the text-only upper bound, and exact checks."""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from data.toybox.heldout import TEST_SEED, sample_scenes
from data.toybox.language import caption, is_true
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_03_blip2 import reference
from lessons.lesson_03_blip2.experiment.data import (
    STOP,
    ImageTextPairs,
    encode_scenes,
    questions_and_answers,
    short_captions,
)
from lessons.lesson_03_blip2.model import (
    TASKS,
    Blip2,
    FirstStage,
    QFormerConfig,
    QFormerConnector,
    Retriever,
    RetrieverConfig,
    task_mask_matrix,
)
from lessons.lesson_03_blip2.model.losses import image_text_similarity
from shared.course.context import RunContext
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.transformer import Sampling, generate

HELD_OUT = 200
SPLITS = {"": "test", "seen_": "validation"}
"""Prefix of the measurement → split: scenes with an unseen combination, and new scenes with seen combinations."""
OBJECTS, QUESTION_OBJECTS = (1, 2), (1, 1)
"""Number of objects (smallest, largest) in captioned scenes, and in scenes of questions.

The language model answers questions about scenes with one object; given two as text, it confuses them
(`measure_text_upper_bound`).
"""
MAX_NEW_TOKENS = 24
Generate = Callable[[Int[Tensor, "some"], Sampling], list[Tensor]]
"""Maps row indices and sampling settings to the token ids that are generated for each row."""


# ── Captions and answers ──────────────────────────────────────────────────────────────────────────────────────────────


def evaluate(
    model: Blip2,
    tokenizer: Tokenizer,
    count: int,
    objects: tuple[int, int],
    question_objects: tuple[int, int],
    device: str,
) -> dict[str, Any]:
    """Return caption and answer accuracies on both splits, and a Q-Former's attention maps on a few test images."""
    measured: dict[str, Any] = {}
    for prefix, split in SPLITS.items():
        scenes = sample_scenes(split, TEST_SEED, count, objects)
        captions = short_captions(encode_scenes(model.vision_encoder, scenes, device), tokenizer)
        questions = questions_and_answers(
            model.vision_encoder, tokenizer, split, TEST_SEED, count, question_objects, device
        )
        accuracies = caption_accuracy(generate_from_images(model, captions, device), tokenizer, captions)
        accuracies |= answer_accuracy(generate_from_images(model, questions, device), tokenizer, questions)
        measured |= {f"{prefix}{name}": value for name, value in accuracies.items()}
        if isinstance(model.connector, QFormerConnector) and split == "test":
            measured["query_maps"] = query_maps(model, captions.image_features[:6].to(device))
    return measured


def measure_text_upper_bound(context: RunContext, held_out: int = HELD_OUT) -> dict[str, Any]:
    """Return the accuracies of the language model alone, with the scene given as text: an upper bound for connectors.

    Nothing is trained; neither seed nor data set of the context is used.
    """
    vision_encoder, device = load_vision_encoder(), context.device
    language_model, tokenizer = load_language_model()
    language_model.to(device)
    measured: dict[str, Any] = {}
    for prefix, split in SPLITS.items():
        scenes = sample_scenes(split, TEST_SEED, held_out, OBJECTS)
        captions = short_captions(encode_scenes(vision_encoder, scenes, device), tokenizer)
        questions, questions_of_two = (
            questions_and_answers(vision_encoder, tokenizer, split, TEST_SEED, held_out, objects, device)
            for objects in (QUESTION_OBJECTS, (2, 2))
        )
        accuracies = {
            **caption_accuracy(generate_from_text(language_model, tokenizer, captions, device), tokenizer, captions),
            **answer_accuracy(generate_from_text(language_model, tokenizer, questions, device), tokenizer, questions),
            "answers_of_two": answer_accuracy(
                generate_from_text(language_model, tokenizer, questions_of_two, device), tokenizer, questions_of_two
            )["answers"],
        }
        measured |= {f"{prefix}{name}": value for name, value in accuracies.items()}
    return measured


def generate_from_images(model: Blip2, pairs: ImageTextPairs, device: str) -> Generate:
    """Return a function that continues the prompts of some rows, given their images."""

    def continue_rows(rows: Int[Tensor, "some"], sampling: Sampling) -> list[Tensor]:
        return model.generate(pairs.image_features[rows].to(device), pairs.prompts(rows), sampling)

    return continue_rows


def generate_from_text(
    language_model: LanguageModel, tokenizer: Tokenizer, pairs: ImageTextPairs, device: str
) -> Generate:
    """Return a function that continues the prompts of some rows, given full captions in place of the images."""

    def continue_rows(rows: Int[Tensor, "some"], sampling: Sampling) -> list[Tensor]:
        captions = [f"{caption(pairs.scenes[row], 'places')}.{STOP}" for row in rows]
        prefixes = [torch.tensor([tokenizer.special_tokens[BEGIN_TOKEN], *tokenizer.encode(text)]) for text in captions]
        prompts = [torch.cat(parts).to(device) for parts in zip(prefixes, pairs.prompts(rows), strict=True)]
        return generate(language_model, prompts, sampling)

    return continue_rows


def generated_texts(continue_rows: Generate, tokenizer: Tokenizer, pairs: ImageTextPairs) -> list[str]:
    """Return what is generated for each row, greedily, up to the end of the line."""
    stops = [token for token in range(tokenizer.vocab_size) if STOP.encode() in tokenizer.decode_bytes([token])]
    texts = []
    for rows in torch.arange(len(pairs.texts)).split(64):
        continuations = continue_rows(rows, Sampling(MAX_NEW_TOKENS, stop_token_ids=stops))
        texts += [tokenizer.decode(token_ids.tolist()).split(STOP)[0].strip() for token_ids in continuations]
    return texts


def caption_accuracy(
    continue_rows: Generate, tokenizer: Tokenizer, pairs: ImageTextPairs
) -> dict[str, float | list[str]]:
    """Return the fraction of captions that name each object once and no other, and the first captions."""
    texts = generated_texts(continue_rows, tokenizer, pairs)
    correct = [is_true(text, scene) for text, scene in zip(texts, pairs.scenes, strict=True)]
    return {"captions": sum(correct) / len(correct), "captions_written": texts[:16]}


def answer_accuracy(continue_rows: Generate, tokenizer: Tokenizer, pairs: ImageTextPairs) -> dict[str, float]:
    """Return the fraction of correct answers, in total and per question type, and that of the blind baseline.

    The blind baseline gives every question the most frequent answer of its type.
    """
    texts = generated_texts(continue_rows, tokenizer, pairs)
    correct = [text == answer for text, answer in zip(texts, pairs.texts, strict=True)]
    measured = {"answers": sum(correct) / len(correct)}
    blind = 0
    for question_type in dict.fromkeys(pairs.question_types):
        rows = [row for row, row_type in enumerate(pairs.question_types) if row_type == question_type]
        measured[f"answers_{question_type}"] = sum(correct[row] for row in rows) / len(rows)
        blind += Counter(pairs.texts[row] for row in rows).most_common(1)[0][1]
    return measured | {"answers_blind": blind / len(correct)}


@torch.no_grad()
def query_maps(model: Blip2, image_features: Float[Tensor, "images patches context"]) -> list[list[list[float]]]:
    """Return the queries' last cross-attention to the patches, mean over heads: [images, queries, patches]."""
    queries = model.connector.queries.expand(len(image_features), -1, -1)
    maps = model.connector.qformer.cross_attention_maps(queries, image_features)[-1].mean(dim=1)
    return maps.tolist()


@torch.no_grad()
def retrieval_recall(retriever: Retriever, pairs: ImageTextPairs, device: str) -> dict[str, float]:
    """Return recall at 1 of image-to-text retrieval among the distinct captions of the pairs, and chance."""
    retriever = retriever.to(device)
    caption_index = {text: index for index, text in enumerate(dict.fromkeys(pairs.texts))}
    rows = torch.tensor([pairs.texts.index(text) for text in caption_index])
    texts = retriever.text_embeddings(pairs.token_ids[rows].to(device), pairs.segments[rows].to(device))
    scores = image_text_similarity(retriever.image_embeddings(pairs.image_features.to(device)), texts)
    targets = torch.tensor([caption_index[text] for text in pairs.texts], device=device)
    recall = (scores.argmax(dim=1) == targets).float().mean().item()
    return {"retrieval": recall, "retrieval_chance": 1 / len(caption_index)}


# ── Exact checks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_against_reference(context: RunContext) -> dict[str, float]:
    """Return the largest differences between the pure-Python first stage and the PyTorch one; only the seed is used."""
    torch.manual_seed(context.seed)
    plain, model, image_features = build_both(context.seed)
    texts = [reference.tokenize(name) for name in reference.NAMES[:4]]
    token_ids, features = torch.tensor(reference.pad(texts)), to_stdlib(image_features)
    segments = torch.tensor([[0] * len(text) + [-1] * (reference.MAX_TOKENS - len(text)) for text in texts])
    scores = plain.contrastive_scores(features, texts)
    logits = to_torch(plain.generation_logits(features, texts))
    expected_logits = model.generation_logits(image_features, token_ids, segments)
    masks = [
        (to_torch(reference.task_mask(task, 4, list(map(len, texts)), reference.MAX_TOKENS))[:, 0] == 0)
        != task_mask_matrix(task, 4, segments)
        for task in TASKS
    ]
    return {
        "contrast_difference": max_abs_difference(
            to_torch(scores), contrastive_scores(model, image_features, token_ids, segments)
        ),
        "generation_difference": (logits - expected_logits)[segments >= 0].abs().max().item(),
        "mask_difference": float(sum(mask.sum().item() for mask in masks)),
    }


def build_both(seed: int) -> tuple[reference.FirstStage, FirstStage, Tensor]:
    """Return the pure-Python and the PyTorch model with the same random weights, and random image features."""
    sizes = reference.Sizes()
    qformer = QFormerConfig(sizes.width, sizes.depth, sizes.heads, sizes.mlp_dim, sizes.context_width, text_input=True)
    config = RetrieverConfig(qformer, sizes.queries, reference.VOCAB_SIZE, reference.MAX_TOKENS, sizes.projection_dim)
    model = FirstStage(Retriever(config, nn.Identity()), reference.DECODE).double()
    plain = reference.FirstStage(reference.Retriever(sizes, Random(seed)), Random(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    return plain, model, torch.randn(4, 9, sizes.context_width, dtype=torch.float64)


@torch.no_grad()
def contrastive_scores(model: FirstStage, image_features: Tensor, token_ids: Tensor, segments: Tensor) -> Tensor:
    """Return similarities divided by the temperature, with images and texts encoded separately."""
    retriever = model.retriever
    scores = image_text_similarity(
        retriever.image_embeddings(image_features), retriever.text_embeddings(token_ids, segments)
    )
    return scores / model.log_temperature.exp()
