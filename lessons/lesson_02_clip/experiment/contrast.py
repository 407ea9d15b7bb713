"""Arms that learn from pairs: the headline, the sigmoid loss, and both losses with fewer pairs to contrast at a time."""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data.toybox.heldout import sample_scenes
from data.toybox.tensors import IMAGE_SIZE
from lessons.lesson_01_vit.model import VisionTransformer, sine_cosine_positions
from lessons.lesson_02_clip.experiment.measure import apart, evaluate, measure
from lessons.lesson_02_clip.experiment.pairs import Pairs, toy_tokenizer
from lessons.lesson_02_clip.model import CLIP, CLIPConfig, SigLIP, TextEncoderConfig, clip_vision_config
from shared.training import Evaluation, RunOptions, TrainingConfig, curve_from_history, train

SCENES = 16_000
# How many pairs are compared with one another, in the arms that compare the losses.
CONTRASTS = (2, 4, 8, 16, 32, 64)


def small_model(
    loss: Literal["info-nce", "sigmoid"], *, patch_size: int = 4, width: int = 64, depth: int = 3, waves: float = 0.0
) -> CLIP | SigLIP:
    """The lesson's own two towers: 64 patches of 4×4 pixels into three blocks, a caption's words into two."""
    tokenizer = toy_tokenizer()
    sizes = {"width": width, "heads": width // 16, "mlp_dim": 2 * width, "activation": "gelu"}
    text = TextEncoderConfig(
        vocab_size=len(tokenizer.vocab),
        context_length=tokenizer.context_length,
        depth=2,
        end_token=tokenizer.end,
        **sizes,
    )
    image = clip_vision_config(image_size=IMAGE_SIZE, patch_size=patch_size, depth=depth, **sizes)
    # The same two towers for either loss, so that the loss is all that differs.
    model = CLIP(CLIPConfig(image, text, embedding=width))
    model = model if loss == "info-nce" else WithSigmoid(model.config)
    if waves:
        begin_positions(model.image_encoder, waves)
    return model


@torch.no_grad()
def begin_positions(tower: VisionTransformer, size: float) -> None:
    """Let learned positions begin as waves of rows and columns of a size, about that of what a patch shows.

    Begun small and at random, as in the paper, they are too weak to tell places even after four thousand steps: colours and
    textures win batch after batch without them.
    """
    waves = sine_cosine_positions(tower.config.grid, tower.config.width)
    tower.positions[tower.prefix_tokens :] = size * waves


class WithSigmoid(CLIP):
    """CLIP's towers under SigLIP's loss."""

    logits, loss = SigLIP.logits, SigLIP.loss

    def __init__(self, config: CLIPConfig):
        super().__init__(config)
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))
        nn.init.constant_(self.log_scale, 2.302585)


def contrastive_loss(
    model: CLIP | SigLIP, batch: tuple[Tensor, Tensor], contrast: int
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The loss of a batch in groups of `contrast` pairs: each pair meets only those of its own group.

    The encoders' work is the same for every `contrast`, and so are pairs and steps: what differs is what is compared.
    """
    images, texts = model.encode_images(batch[0]), model.encode_texts(batch[1])
    groups = zip(images.split(contrast), texts.split(contrast), strict=True)
    loss = torch.stack([model.loss(*group) for group in groups]).mean()
    return loss, {"scale": model.logit_scale.detach()}


def train_pairs(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    loss: Literal["info-nce", "sigmoid"] = "info-nce",
    batch_size: int = 64,
    contrast: int | None = None,
    objects: tuple[int, int] | list[int] = (1, 1),
    detailed: float = 0.5,
    learning_rate: float = 5e-3,
    temperature: float | None = None,
    scenes: int = SCENES,
    **sizes: int | float,
) -> dict:
    """Train two towers on pairs of the toy world; measure them on combinations that they have not met.

    contrast      how many pairs are compared with one another; the whole batch when left out
    things        the least and the greatest number of things in a scene
    detailed      the share of captions that tell everything
    temperature   held fixed where given, learned otherwise
    """
    torch.manual_seed(seed)
    model = small_model(loss, **sizes)
    if temperature is not None:
        nn.init.constant_(model.log_scale, -torch.tensor(temperature).log().item())
        model.log_scale.requires_grad_(False)
    training = sample_scenes("train", seed, scenes, tuple(objects))
    pairs = Pairs.of(training, batch_size=batch_size, seed=seed, detailed=detailed)
    config = TrainingConfig(
        steps=steps, learning_rate=learning_rate, optimizer="muon", warmup_steps=steps // 10, betas=(0.9, 0.98),
        seed=seed, log_every=max(1, steps // 40),
    )  # fmt: skip
    gap_before = apart(model.to(device))
    result = train(
        model,
        pairs,
        lambda model, batch: contrastive_loss(model, batch, contrast or batch_size),
        config,
        run=RunOptions(folder=folder, resume=resume, device=device, label=folder.name),
        evaluation=Evaluation(evaluate, every=max(1, steps // 8)),
    )
    return {
        **measure(result.model),
        "gap_before": gap_before,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss_curve": curve_from_history(result.history, "loss"),
        "scale_curve": curve_from_history(result.history, "scale"),
        "zero_shot_curve": curve_from_history(result.history, "evaluation/zero_shot"),
    }
