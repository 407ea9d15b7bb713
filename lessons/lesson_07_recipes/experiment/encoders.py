"""The encoder axis: a small CLIP, trained with the contrastive loss alone or with a captioning loss too."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from data.toybox.language import caption
from data.toybox.scene import Scene
from data.toybox.tensors import IMAGE_SIZE, normalize_pixels, render_tensors
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig, sine_cosine_positions
from lessons.lesson_02_clip.model import CLIP, CLIPConfig, TextEncoderConfig, clip_vision_config
from lessons.lesson_02_clip.model.caption_decoder import (
    CaptionDecoder,
    CaptionDecoderConfig,
    CaptioningCLIP,
    captioning_loss,
)
from lessons.lesson_02_clip.model.pretrained import vision_features
from lessons.lesson_07_recipes.experiment.flops import affordable_steps, training_flops
from shared.course.context import RunContext
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN, END_TOKEN
from shared.training import curve_from_history, muon_config, train
from shared.training.batches import fit_batch_size

WEIGHTS = "encoder.safetensors"
WIDTH, DEPTH, HEADS, PATCH_SIZE = 64, 3, 4, 4
POSITION_SCALE = 0.5
"""Of the sine-cosine vectors that learned positions start from: small random ones encode places late in training."""
LEARNING_RATE, BATCH_SIZE = 5e-3, 32


class CaptionedImages:
    """Images with full captions to train a CLIP on. `batches(number)` is a pure function of the number.

    No caption occurs twice in a batch: two images with one caption are each other's false negatives.
    """

    def __init__(self, scenes: Sequence[Scene], tokenizer: Tokenizer, seed: int, batch_size: int = BATCH_SIZE):
        self.captions = [caption(scene, "places") for scene in scenes]
        self.pixels, self.seed = render_tensors(scenes), seed
        self.batch_size = fit_batch_size(batch_size, len(set(self.captions)))
        self.end = tokenizer.special_tokens[END_TOKEN]
        begin = tokenizer.special_tokens[BEGIN_TOKEN]
        rows = [[begin, *tokenizer.encode(text), self.end] for text in self.captions]
        longest = max(map(len, rows))
        self.token_ids = torch.tensor([row + [self.end] * (longest - len(row)) for row in rows])

    def __call__(
        self, number: int
    ) -> tuple[Float[Tensor, "batch 3 size size"], Int[Tensor, "batch tokens"], Int[Tensor, "batch tokens"]]:
        """Return images, their captions, and the captions' segments: 0 up to the end token, −1 for padding."""
        generator = np.random.default_rng([self.seed, number])
        row_by_caption: dict[str, int] = {}
        while len(row_by_caption) < self.batch_size:
            row = int(generator.integers(len(self.captions)))
            row_by_caption.setdefault(self.captions[row], row)
        rows = torch.tensor(list(row_by_caption.values()))
        token_ids = self.token_ids[rows]
        ends_before = (token_ids == self.end).cumsum(dim=1) - (token_ids == self.end).int()
        return normalize_pixels(self.pixels[rows]), token_ids, torch.where(ends_before > 0, -1, 0)


def encoder_config() -> VisionTransformerConfig:
    """Return the config of the lab's image encoder: 64 patches of 4 × 4 pixels, three blocks."""
    sizes = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "mlp_dim": 2 * WIDTH}
    return clip_vision_config(image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, activation="gelu", **sizes)


def untrained_clip(vocab_size: int, context_length: int, end_token: int, *, captioning: bool) -> CLIP | CaptioningCLIP:
    """Return a CLIP; with `captioning`, a decoder of two blocks describes the image from its patch features as well."""
    sizes = {"vocab_size": vocab_size, "context_length": context_length, "width": WIDTH, "heads": HEADS, "depth": 2}
    sizes["mlp_dim"] = 2 * WIDTH
    text = TextEncoderConfig(**sizes, activation="gelu", end_token=end_token)
    clip = CLIP(CLIPConfig(encoder_config(), text, embedding=WIDTH))
    encoder = clip.image_encoder
    assert encoder.positions is not None
    with torch.no_grad():
        places = POSITION_SCALE * sine_cosine_positions(encoder.config.grid, WIDTH)
        encoder.positions[encoder.config.prefix_positions :] = places
    if not captioning:
        return clip
    return CaptioningCLIP(clip, CaptionDecoder(CaptionDecoderConfig(image_width=WIDTH, **sizes)))


def clip_loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Float[Tensor, ""]:
    """Return the contrastive loss of a batch, plus the cross-entropy of the captions when the model has a decoder."""
    pixels, token_ids, segments = batch
    if isinstance(model, CaptioningCLIP):
        images, logits = model(pixels, token_ids, segments)
        captions = captioning_loss(logits, token_ids, segments, segments >= 0)
        return model.clip.loss(images, model.clip.encode_texts(token_ids)) + captions
    assert isinstance(model, CLIP)
    return model.loss(model.encode_images(pixels), model.encode_texts(token_ids))


def train_encoder(
    context: RunContext, scenes: Sequence[Scene], tokenizer: Tokenizer, *, captioning: bool, budget: float
) -> tuple[VisionTransformer, dict]:
    """Train one level of the encoder for a budget of operations; write its weights to the arm's folder.

    Return the frozen encoder, and its steps and loss curve.
    """
    torch.manual_seed(context.seed)
    batches = CaptionedImages(scenes, tokenizer, context.seed)
    model = untrained_clip(tokenizer.vocab_size, batches.token_ids.shape[1], batches.end, captioning=captioning)
    steps = affordable_steps(budget, training_flops(lambda: clip_loss(model, batches(0))))
    result = train(
        model.to(context.device),
        batches,
        clip_loss,
        muon_config(steps, LEARNING_RATE, seed=context.seed, betas=(0.9, 0.98), checkpoint_every=max(100, steps // 4)),
        run=context.subfolder("encoder").run_options(label=f"{context.folder.name}, encoder"),
    )
    clip = model.clip if isinstance(model, CaptioningCLIP) else model
    encoder = clip.image_encoder.eval().requires_grad_(False)
    safetensors.torch.save_file(encoder.state_dict(), context.folder / WEIGHTS)
    return encoder, {"encoder_steps": steps, "encoder_curve": curve_from_history(result.history, "loss")}


def load_encoder(folder: Path, device: str) -> VisionTransformer:
    """Load the frozen encoder that an arm has written to its folder."""
    encoder = VisionTransformer(encoder_config())
    encoder.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    return encoder.to(device).eval().requires_grad_(False)


def encode_images(
    encoder: VisionTransformer, scenes: Sequence[Scene], device: str
) -> Float[Tensor, "scenes patches width"]:
    """Return the features of each scene: the patches that enter the last block, each normalized to one scale."""
    return vision_features(encoder, render_tensors(scenes), device).cpu()
