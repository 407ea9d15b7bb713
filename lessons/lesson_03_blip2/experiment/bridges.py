"""The arms: a Q-Former with both stages, without the first, and two simpler bridges, all at equal steps of the second."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from data.toybox.heldout import TEST_SEED, sample_scenes
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_03_blip2.experiment.measure import (
    answer_accuracy,
    caption_accuracy,
    query_maps,
    shown,
    told_in_words,
)
from lessons.lesson_03_blip2.experiment.pairs import (
    Pairs,
    UniqueCaptions,
    asked,
    captioned,
    joined,
    looked_at,
    questioned,
    told,
)
from lessons.lesson_03_blip2.model import (
    Blip2,
    FirstStage,
    LinearBridge,
    MeanPoolingBridge,
    QFormerBridge,
    QFormerConfig,
    Retriever,
    RetrieverConfig,
    first_stage,
    second_stage,
)
from lessons.lesson_03_blip2.model.losses import similarities
from shared.pretrained.digest import weights_digest
from shared.tokenizers import Tokenizer
from shared.training import Batches, RunOptions, TrainingConfig, curve_from_history, train

TURN = "<|turn|>"  # a special token that lesson 0's decoder has never read: here it tells the Q-Former to write
HELD_OUT = 200
SPLITS = {"": "test", "seen_": "validation"}
"""What is measured where: on scenes with a combination that was never met, and on new scenes of met ones."""
OBJECTS, ASKED_THINGS = (1, 2), (1, 1)
"""How many things there are in scenes that are told, and in scenes that are asked about.

The language model answers about one thing; told of two in words, it takes one for the other (`read_captions`).
"""


def train_bridge(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    first_steps: int = 0,
    bridge: Literal["q-former", "linear", "mean"] = "q-former",
    scenes: int = 4000,
    objects: tuple[int, int] | list[int] = OBJECTS,
    asked_things: tuple[int, int] | list[int] = ASKED_THINGS,
    queries: int = 8,
    width: int = 64,
    depth: int = 2,
    batch_size: int = 32,
    first_rate: float = 4e-3,
    learning_rate: float = 5e-3,
    held_out: int = HELD_OUT,
) -> dict:
    """Train a bridge between the frozen eye and the frozen language model; measure it on held-out combinations.

    first_steps   steps of the first stage; 0 leaves it out, and other bridges than the Q-Former have none
    things        the least and the greatest number of things in a scene that is told; of one that is asked about, `asked_things`
    (data is not used: the toy world is what the frozen ends have seen)
    """
    torch.manual_seed(seed)
    eye = load_vision_encoder()
    language, tokenizer = load_language_model()
    before = weights_digest(eye), weights_digest(language)
    objects, asked_things = tuple(objects), tuple(asked_things)
    seen = looked_at(eye, sample_scenes("train", seed, scenes, objects), device)
    captions, short = captioned(seen, tokenizer), told(seen, tokenizer)
    questions = questioned(eye, tokenizer, "train", seed, scenes, asked_things, device)
    config = QFormerConfig(width, depth, max(1, width // 16), 2 * width, captions.features.shape[2])
    between = new_bridge(bridge, config, queries, language.config.width)
    measured: dict = {}
    if first_steps:
        retriever, history = learn_first_stage(
            eye, config, queries, tokenizer, captions, seed=seed, device=device, folder=folder / "stage-1", resume=resume,
            steps=first_steps, batch_size=batch_size, learning_rate=first_rate,
        )  # fmt: skip
        between.start_from(retriever)
        new = looked_at(eye, sample_scenes("test", TEST_SEED, held_out, objects), device)
        measured |= {"first_loss_curve": history} | retrieval(retriever, captioned(new, tokenizer), device)
    model = Blip2(eye, between, language).to(device)
    history = learn_second_stage(
        model, joined(short, questions), seed=seed, device=device, folder=folder / "stage-2", resume=resume, steps=steps,
        batch_size=batch_size, learning_rate=learning_rate,
    )  # fmt: skip
    model.eval()
    for name, split in SPLITS.items():
        tell = told(looked_at(eye, sample_scenes(split, TEST_SEED, held_out, objects), device), tokenizer)
        ask = questioned(eye, tokenizer, split, TEST_SEED, held_out, asked_things, device)
        captions_right = caption_accuracy(shown(model, tell, device), tokenizer, tell)
        answers_right = answer_accuracy(shown(model, ask, device), tokenizer, ask)
        measured |= {f"{name}{of}": value for of, value in (captions_right | answers_right).items()}
        if bridge == "q-former" and split == "test":
            measured["query_maps"] = query_maps(model, tell.features[:6].to(device))
    return measured | {
        "loss_curve": history,
        "frozen_changed": float((weights_digest(eye), weights_digest(language)) != before),
        "image_tokens": between(captions.features[:1].to(device)).shape[1],
        "parameters": sum(parameter.numel() for parameter in between.parameters()),
    }


def read_captions(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, held_out: int = HELD_OUT
) -> dict[str, float | list[str]]:
    """What the language model says by itself when it is told in words: no bridge can be expected to do better.

    (Nothing is trained; neither seed nor data is used.)
    """
    eye = load_vision_encoder()
    language, tokenizer = load_language_model()
    language.to(device)
    measured: dict = {}
    for name, split in SPLITS.items():
        tell = told(looked_at(eye, sample_scenes(split, TEST_SEED, held_out, OBJECTS), device), tokenizer)
        ask = questioned(eye, tokenizer, split, TEST_SEED, held_out, ASKED_THINGS, device)
        two = questioned(eye, tokenizer, split, TEST_SEED, held_out, (2, 2), device)
        measured |= {f"{name}{of}": value for of, value in {
            **caption_accuracy(told_in_words(language, tokenizer, tell, device), tokenizer, tell),
            **answer_accuracy(told_in_words(language, tokenizer, ask, device), tokenizer, ask),
            "answers_of_two": answer_accuracy(told_in_words(language, tokenizer, two, device), tokenizer, two)["answers"],
        }.items()}  # fmt: skip
    return measured


def training_config(steps: int, learning_rate: float, seed: int) -> TrainingConfig:
    """How either stage is trained.

    With Muon: under AdamW the frozen language model's own idea of what comes next is hard to leave, and after some hundred
    steps every picture still gets the same caption.
    """
    return TrainingConfig(
        steps=steps, learning_rate=learning_rate, optimizer="muon", betas=(0.9, 0.95), warmup_steps=steps // 10, seed=seed,
        log_every=max(1, steps // 40),
    )  # fmt: skip


def new_bridge(kind: str, config: QFormerConfig, queries: int, language_width: int) -> nn.Module:
    """A fresh bridge of a kind. Raises ValueError for another."""
    if kind == "q-former":
        return QFormerBridge(config, queries, language_width)
    if kind == "linear":
        return LinearBridge(config.context_width, language_width)
    if kind == "mean":
        return MeanPoolingBridge(config.context_width, language_width)
    raise ValueError(f"no bridge {kind!r}: choose q-former, linear or mean")


def learn_first_stage(
    eye: nn.Module, config: QFormerConfig, queries: int, tokenizer: Tokenizer, captions: Pairs, *, seed: int, device: str,
    folder: Path, resume: bool, steps: int, batch_size: int, learning_rate: float,
) -> tuple[Retriever, list]:  # fmt: skip
    """Contrast, matching and writing on captions; return what has learned, and the loss by steps."""
    sizes = RetrieverConfig(
        QFormerConfig(**{**vars(config), "reads_text": True}), queries, tokenizer.vocab_size, 64, shared_width=32
    )
    model = FirstStage(Retriever(sizes, eye), tokenizer.special_tokens[TURN])
    result = train(
        model,
        UniqueCaptions(captions, batch_size, seed),
        lambda model, batch: model(*batch),
        training_config(steps, learning_rate, seed),
        run=RunOptions(folder=folder, resume=resume, device=device, label=f"{folder.parent.name}, stage 1"),
        stages=first_stage(steps),
    )
    return model.retriever.eval(), curve_from_history(result.history, "loss")


def learn_second_stage(
    model: Blip2, pairs: Pairs, *, seed: int, device: str, folder: Path, resume: bool, steps: int, batch_size: int,
    learning_rate: float,
) -> list:  # fmt: skip
    """The frozen language model is asked for captions and answers, and only the bridge learns; return the loss by steps."""

    def loss(model: Blip2, batch: tuple[Tensor, ...]) -> Tensor:
        features, tokens, segments, wanted = batch
        logits = model.logits(features, tokens, segments)
        chosen = wanted[:, 1:]
        return nn.functional.cross_entropy(logits[:, :-1][chosen], tokens[:, 1:][chosen])

    batches = Batches(
        pairs.features,
        pairs.tokens,
        pairs.segments,
        asked(pairs.segments, pairs.prompts),
        batch_size=batch_size,
        seed=seed,
    )
    result = train(
        model,
        batches,
        loss,
        training_config(steps, learning_rate, seed),
        run=RunOptions(folder=folder, resume=resume, device=device, label=f"{folder.parent.name}, stage 2"),
        stages=second_stage(steps),
    )
    return curve_from_history(result.history, "loss")


@torch.no_grad()
def retrieval(retriever: Retriever, pairs: Pairs, device: str) -> dict[str, float]:
    """Recall at 1 of the first stage alone: among the distinct captions of held-out scenes, is each picture's own the best?"""
    retriever = retriever.to(device)
    distinct = {text: row for row, text in enumerate(dict.fromkeys(pairs.texts))}
    rows = torch.tensor([pairs.texts.index(text) for text in distinct])
    texts = retriever.text_vectors(pairs.tokens[rows].to(device), pairs.segments[rows].to(device))
    scores = similarities(retriever.image_vectors(pairs.features.to(device)), texts)
    own = torch.tensor([distinct[text] for text in pairs.texts], device=device)
    return {"retrieval": (scores.argmax(dim=1) == own).float().mean().item(), "retrieval_chance": 1 / len(distinct)}
