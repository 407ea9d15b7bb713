"""Arms that train a small CLIP on the toy world: the headline, both losses with few contrasted pairs, temperatures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data.toybox.heldout import sample_scenes
from data.toybox.scene import Scene
from data.toybox.tensors import IMAGE_SIZE
from lessons.lesson_01_vit.model import VisionTransformer, sine_cosine_positions
from lessons.lesson_02_clip.experiment.data import CaptionedScenes, toy_tokenizer
from lessons.lesson_02_clip.experiment.described_scenes import DescribedBatch, DescribedScenes
from lessons.lesson_02_clip.experiment.evaluate import evaluate, evaluate_zero_shot, measure_gap
from lessons.lesson_02_clip.experiment.probes import probe_patches
from lessons.lesson_02_clip.model import CLIP, CLIPConfig, TextEncoderConfig, clip_vision_config
from lessons.lesson_02_clip.model.caption_decoder import (
    CaptionDecoder,
    CaptionDecoderConfig,
    CaptioningCLIP,
    captioning_loss,
)
from shared.course.context import RunContext
from shared.training import Evaluation, TrainingConfig, TrainingResult, curve_from_history, muon_config, train

Loss = Literal["info-nce", "sigmoid"]


@dataclass(frozen=True)
class ContrastiveRecipe:
    """Describe contrastive training on the toy world.

    contrast         number of pairs that are contrasted with each other; None: the whole batch
    objects          minimum and maximum number of objects in a scene
    detail_fraction  fraction of captions with all attributes
    temperature      fixed if given, learned otherwise
    scenes           number of training scenes
    regions          patches that a caption decoder describes per image, besides the whole image; None for no decoder
    precision        of matrix products: "float32" or "bfloat16"
    """

    steps: int
    loss: Loss = "info-nce"
    batch_size: int = 64
    contrast: int | None = None
    objects: tuple[int, int] | list[int] = (1, 1)
    detail_fraction: float = 0.5
    learning_rate: float = 5e-3
    temperature: float | None = None
    scenes: int = 16_000
    regions: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"


def train_clip(context: RunContext, *, architecture: dict[str, Any] | None = None, **recipe: Any) -> dict:
    """Train a small CLIP on pairs of the toy world; measure it on held-out color–shape combinations.

    `architecture` holds arguments of `small_clip`, `recipe` the fields of `ContrastiveRecipe`.
    """
    settings = ContrastiveRecipe(**recipe)
    torch.manual_seed(context.seed)
    model = small_clip(settings.loss, **(architecture or {}))
    if settings.temperature is not None:
        nn.init.constant_(model.log_scale, -torch.tensor(settings.temperature).log().item())
        model.log_scale.requires_grad_(False)
    initial_gap = measure_gap(model.to(context.device))
    result = (
        train_with_captions(context, model, settings) if settings.regions else contrast_pairs(context, model, settings)
    )
    return {
        **evaluate(model),
        **(probe_patches(model.image_encoder) if max(settings.objects) > 1 else {}),
        "gap_before": initial_gap,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss_curve": curve_from_history(result.history, "loss"),
        "scale_curve": curve_from_history(result.history, "scale"),
        "zero_shot_curve": curve_from_history(result.history, "evaluation/zero_shot"),
    }


def contrast_pairs(context: RunContext, model: CLIP, settings: ContrastiveRecipe) -> TrainingResult:
    """Train CLIP with its contrastive loss alone."""
    contrast = settings.contrast or settings.batch_size
    return train(
        model,
        captioned_scenes(training_scenes(context, settings), context, settings),
        lambda model, batch: contrastive_loss(model, batch, contrast),
        training_config(context, settings),
        run=context.run_options(),
        evaluation=Evaluation(evaluate_zero_shot, every=max(1, settings.steps // 8)),
    )


def train_with_captions(context: RunContext, model: CLIP, settings: ContrastiveRecipe) -> TrainingResult:
    """Train CLIP with the contrastive loss and the loss of a caption decoder, which is dropped afterward."""
    scenes = training_scenes(context, settings)
    assert settings.regions is not None
    batches = DescribedScenes(scenes, captioned_scenes(scenes, context, settings), settings.regions)
    return train(
        CaptioningCLIP(model, small_decoder(model)).to(context.device),
        batches,
        captioned_loss,
        training_config(context, settings),
        run=context.run_options(),
        evaluation=Evaluation(lambda both: evaluate_zero_shot(both.clip), every=max(1, settings.steps // 8)),
    )


def training_scenes(context: RunContext, settings: ContrastiveRecipe) -> list[Scene]:
    """Return the training scenes of a recipe."""
    minimum, maximum = settings.objects
    return sample_scenes("train", context.seed, settings.scenes, (minimum, maximum))


def captioned_scenes(scenes: Sequence[Scene], context: RunContext, settings: ContrastiveRecipe) -> CaptionedScenes:
    """Return batches of scenes with captions."""
    return CaptionedScenes.from_scenes(
        scenes, batch_size=settings.batch_size, seed=context.seed, detail_fraction=settings.detail_fraction
    )


def training_config(context: RunContext, settings: ContrastiveRecipe) -> TrainingConfig:
    """Return the optimizer's settings of a recipe."""
    return muon_config(
        settings.steps,
        settings.learning_rate,
        seed=context.seed,
        betas=(0.9, 0.98),
        precision=settings.precision,
        checkpoint_every=max(500, settings.steps // 20),
    )


def small_decoder(model: CLIP) -> CaptionDecoder:
    """Build a caption decoder of two blocks for the patch features of a model, as wide as they are."""
    tokenizer, width = toy_tokenizer(), model.config.image.width
    config = CaptionDecoderConfig(
        vocab_size=len(tokenizer.vocab),
        context_length=tokenizer.context_length,
        image_width=width,
        width=width,
        depth=2,
        heads=model.config.image.heads,
        mlp_dim=2 * width,
    )
    return CaptionDecoder(config)


def small_clip(
    loss: Loss = "info-nce",
    *,
    patch_size: int = 4,
    width: int = 64,
    depth: int = 3,
    position_scale: float = 0.0,
) -> CLIP:
    """Build the lesson's CLIP: 64 patches of 4×4 pixels and three blocks for images, two blocks for captions.

    With `position_scale`, the learned positions of patches are initialized with sine-cosine vectors of that scale.
    """
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
    config = CLIPConfig(image, text, embedding=width)
    model = CLIP(config)
    if loss == "sigmoid":
        # Built a second time: the recorded results of these arms start from the second draw of random weights.
        model = CLIP(replace(config, loss=loss))
    if position_scale:
        initialize_positions(model.image_encoder, position_scale)
    return model


@torch.no_grad()
def initialize_positions(image_encoder: VisionTransformer, scale: float) -> None:
    """Initialize learned positions with sine-cosine vectors of a scale similar to that of the patch embeddings.

    Small random positions, as in the paper, are still too weak to encode places after four thousand steps: colors and
    textures are enough to lower the loss of most batches.
    """
    if image_encoder.positions is None:
        raise ValueError("the image encoder has no positions to initialize; its config has positions='none'")
    config = image_encoder.config
    image_encoder.positions[config.prefix_positions :] = scale * sine_cosine_positions(config.grid, config.width)


def contrastive_loss(
    model: CLIP, batch: tuple[Tensor, Tensor], contrast: int
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return the mean loss over groups of `contrast` pairs, each contrasted with the pairs of its group only.

    The computation of the encoders, the pairs and the steps are the same for every `contrast`.
    """
    images, texts = model.encode_images(batch[0]), model.encode_texts(batch[1])
    groups = zip(images.split(contrast), texts.split(contrast), strict=True)
    loss = torch.stack([model.loss(*group) for group in groups]).mean()
    return loss, {"scale": model.logit_scale.detach()}


def captioned_loss(model: CaptioningCLIP, batch: DescribedBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return contrastive loss + cross-entropy of the full captions + cross-entropy of the patch descriptions."""
    images, logits = model(batch.pixels, batch.text_ids, batch.segments)
    texts = model.clip.encode_texts(batch.token_ids)
    is_caption = batch.segments == 0
    # Similarities are multiplied by up to 100, so they are computed in float32 where the encoders run in bfloat16.
    with torch.autocast(images.device.type, enabled=False):
        contrastive = model.clip.loss(images.float(), texts.float())
        captions, regions = (
            captioning_loss(logits.float(), batch.text_ids, batch.segments, batch.loss_mask & of_kind)
            for of_kind in (is_caption, ~is_caption)
        )
    parts = {"contrastive": contrastive.detach(), "captions": captions.detach(), "regions": regions.detach()}
    return contrastive + captions + regions, parts | {"scale": model.clip.logit_scale.detach()}
