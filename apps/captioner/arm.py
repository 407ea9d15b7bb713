"""The lesson's captioner: the small preset, from scratch on pictures of the toy world, and the same without the picture."""

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from apps.captioner.config import SMALL
from apps.captioner.data import CaptionBatches, caption_tokenizer, shown
from apps.captioner.measure import scores, share_true, written
from apps.captioner.model import Captioner, caption_loss, parameters_by_part
from apps.captioner.toy import toy_pictures
from data.toybox.heldout import TEST_SEED
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from shared.training import Stage, TrainingConfig, curve_from_history, train


def train_captioner(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    eye: Literal["clip", "new"] = "clip",
    blind: bool = False,
    scenes: int = 6000,
    objects: tuple[int, int] | list[int] = (1, 2),
    batch_size: int = 32,
    learning_rate: float = 5e-3,
    held_out: int = 200,
) -> dict:
    """Train the small preset; measure captions of new scenes of seen combinations, and of combinations it has never met.

    eye     lesson 2's, which has learned to tell pictures by their captions and stays as it is; or a new one, which learns
    blind   every picture is gray, in training and after: the baseline that knows how captions go
    (data is not used: whether a caption is true is known of the toy world only)
    """
    objects = tuple(objects)
    size = SMALL.eye.image_sides[0]
    training, _ = toy_pictures("train", seed, scenes, size=size, objects=objects)
    tokenizer = caption_tokenizer(training.captions, SMALL.language.vocab)
    torch.manual_seed(seed)
    model = Captioner(SMALL)
    if eye == "clip":
        model.eye = eye_of_clip()
    held = {
        split: toy_pictures(split, TEST_SEED, held_out, size=size, objects=objects) for split in ("validation", "test")
    }

    def captions_true(trained: Captioner) -> dict[str, float]:
        pictures, of = held["test"]
        return {"true": share_true(written(trained, tokenizer, shown(pictures.pixels[:100], blind)), of[:100])}

    stages = (Stage(steps, ("bridge.*", "language.*")),) if eye == "clip" else ()
    result = train(
        model,
        CaptionBatches(training, tokenizer, batch_size=batch_size, seed=seed, blind=blind),
        caption_loss,
        TrainingConfig(
            steps=steps,
            learning_rate=learning_rate,
            optimizer="muon",
            betas=(0.9, 0.95),
            warmup_steps=steps // 10,
            seed=seed,
            log_every=max(1, steps // 40),
        ),
        run=RunOptions(folder=folder, resume=resume, device=device, label=folder.name),
        evaluation=Evaluation(captions_true, every=max(1, steps // 8)),
        stages=stages,
    )
    measured: dict = {}
    for name, split in (("seen", "validation"), ("held_out", "test")):
        pictures, of = held[split]
        said = written(model, tokenizer, shown(pictures.pixels, blind))
        measured[f"true_{name}"] = share_true(said, of)
        measured |= {f"{score}_{name}": value for score, value in scores(said, pictures.captions).items()}
        measured[f"captions_{name}"] = said[:16]
    return measured | {
        "parameters": parameters_by_part(model)["all"],
        "vocabulary": tokenizer.vocab_size,
        "loss_curve": curve_from_history(result.history, "loss"),
        "true_curve": curve_from_history(result.history, "evaluation/true"),
    }


def eye_of_clip() -> nn.Module:
    """Lesson 2's eye without its last block, to look with: a Vision Transformer of the small preset's sizes.

    What CLIP compares is made in that block, and much that a caption tells is no longer in it (arXiv:2301.12597, section 3.4).
    """
    eye = load_vision_encoder()
    del eye.blocks[-1]
    eye.norm.reset_parameters()
    return eye
