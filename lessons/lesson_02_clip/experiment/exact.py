"""What must hold to rounding, before anything is trained: the mechanism itself."""

import json
import tempfile
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from lessons.lesson_02_clip import reference
from lessons.lesson_02_clip.experiment import two_processes
from lessons.lesson_02_clip.model import (
    CLIP,
    CLIPConfig,
    TextEncoderConfig,
    clip_vision_config,
    encode_in_chunks,
    info_nce,
    sigmoid_loss,
)
from shared.distributed.launch import launch
from shared.errors import CourseError
from shared.stdlib.creation import normal
from shared.stdlib.tensor import Tensor as PlainTensor
from shared.torch_conversion import max_abs_difference, to_torch


def check_mechanism(*, seed: int, data: str, device: str, folder: Path, resume: bool) -> dict:
    """Largest absolute differences between things that the lesson says are the same (data and resume are not used)."""
    torch.manual_seed(seed)
    return {
        "hand_difference": hand_difference(seed),
        **reference_differences(seed),
        "processes_difference": processes_difference(),
        **chunk_measures(),
    }


def hand_difference(seed: int) -> float:
    """Gradients derived by hand against the engine's and against PyTorch's, for both losses."""
    random = Random(seed)
    images, texts = (reference.unit(normal((6, 5), 1.0, random)) for _ in range(2))
    scalars = [PlainTensor([value], ()) for value in (1.7, -2.0)]
    worst = 0.0
    for plain, by_hand, torchs, count in (
        (reference.info_nce, reference.info_nce_gradient, info_nce, 1),
        (reference.sigmoid_loss, reference.sigmoid_gradient, sigmoid_loss, 2),
    ):
        given = [PlainTensor(t.data, t.shape, True) for t in (images, texts, *scalars[:count])]
        plain(*given).backward()
        theirs = [to_torch(tensor).requires_grad_() for tensor in given]
        torchs(theirs[0], theirs[1], theirs[2].exp(), *theirs[3:]).backward()
        for hand, engine, other in zip(by_hand(*given), given, theirs, strict=True):
            found = torch.tensor([hand.data, engine.grad, other.grad.flatten().tolist()], dtype=torch.float64)
            worst = max(worst, (found - found[1]).abs().max().item())
    return worst


def torch_twin(plain: reference.CLIP) -> CLIP:
    """The pure-Python model in PyTorch: one block a tower, patches averaged, and words averaged."""
    width, embedding = len(plain.image_projection.weight.tolist()[0]), plain.image_projection.weight.shape[0]
    sizes = {"width": width, "depth": 1, "heads": plain.image_encoder.attention.heads, "mlp_dim": 2 * width}
    alike = {"activation": "gelu", "norm_eps": 1e-6}
    image = clip_vision_config(
        image_size=reference.SIZE, patch_size=reference.PATCH, class_token=False, pooling="mean", patch_bias=True,
        pre_norm=False, **sizes, **alike,
    )  # fmt: skip
    text = TextEncoderConfig(
        vocab_size=len(reference.VOCABULARY),
        context_length=reference.LONGEST,
        causal=False,
        pooling="mean",
        **sizes,
        **alike,
    )
    twin = CLIP(CLIPConfig(image, text, embedding)).double()
    weights = {ours: to_torch(parameter) for name, parameter in plain.parameters().items() if (ours := twin_name(name))}
    twin.load_state_dict(weights)
    return twin


def twin_name(name: str) -> str | None:
    """What PyTorch's model calls a parameter of the reference; None for the bias of the sigmoid loss, which CLIP lacks."""
    if name == "bias":
        return None
    for plain, ours in (("patches.", "image_encoder.patch_embedding.project."), ("words.", "text_encoder.embedding.")):
        name = name.replace(plain, ours)
    for part in ("attention_norm.", "mlp_norm.", "attention."):
        name = name.replace(f"tower.{part}", f"tower.blocks.0.{part}")
    for part in ("up.", "down."):
        name = name.replace(f"tower.{part}", f"tower.blocks.0.mlp.{part}")
    return name


def reference_differences(seed: int) -> dict[str, float]:
    """Vectors and the gradient of every weight: the pure-Python model against its PyTorch twin, in float64."""
    random = Random(seed)
    plain = reference.CLIP(random)
    for parameter in plain.parameters().values():
        parameter.data = normal(parameter.shape, 0.4, random).data
    twin = torch_twin(plain)
    scenes = [reference.scene_at("train", seed, number, (1, 1)) for number in range(5)]
    pictures, captions = [reference.look(scene) for scene in scenes], [reference.caption(scene) for scene in scenes]

    images, texts = plain.encode_images(pictures), plain.encode_texts(captions)
    plain.loss(images, texts, "info-nce").backward()
    pixels = (
        torch.tensor(pictures, dtype=torch.float64).reshape(-1, reference.SIZE, reference.SIZE, 3).permute(0, 3, 1, 2)
    )
    tokens = torch.tensor([reference.numbers_of(caption) for caption in captions])
    vectors = twin.encode_images(pixels), twin.encode_texts(tokens)
    twin.loss(*vectors).backward()

    gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
    return {
        "reference_difference": max(
            max_abs_difference(to_torch(ours), theirs) for ours, theirs in zip((images, texts), vectors, strict=True)
        ),
        "reference_gradient_difference": max(
            max_abs_difference(parameter.grad, gradients[ours])
            for name, parameter in plain.parameters().items()
            if (ours := twin_name(name))
        ),
    }


def processes_difference() -> float:
    """Both losses and the gradients of all weights, of a batch in one process and spread over two."""
    with tempfile.TemporaryDirectory() as folder:
        done = launch(2, Path(two_processes.__file__), folder)
        if done.returncode:
            raise CourseError(f"two processes did not come to an end together:\n{done.stderr[-2000:]}")
        found = json.loads((Path(folder) / two_processes.FILE_NAME).read_text())
    alone = two_processes.losses_and_gradients()
    return max(abs(a - b) for name, values in alone.items() for a, b in zip(values, found[name], strict=True))


def chunk_measures() -> dict[str, float]:
    """A batch of 64 in chunks of 8 against all at once: gradients, and what must be kept for the walk back."""
    model, images, texts = two_processes.small_pair(64)
    gradients, kept = [], []
    for chunk in (64, 8):
        model.zero_grad()
        loss, size = with_kept_bytes(lambda chunk=chunk: chunked_loss(model, images, texts, chunk))
        loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        kept.append(size)
    return {
        "chunk_difference": (gradients[0] - gradients[1]).abs().max().item(),
        "chunk_kept_share": kept[1] / kept[0],
    }


def chunked_loss(model: CLIP, images: Tensor, tokens: Tensor, chunk: int) -> Tensor:
    """The loss of a batch whose vectors are computed `chunk` at a time; with all at once, plainly."""
    if chunk == len(images):
        return model.loss(model.encode_images(images), model.encode_texts(tokens))
    return model.loss(
        encode_in_chunks(model.encode_images, images, chunk), encode_in_chunks(model.encode_texts, tokens, chunk)
    )


def with_kept_bytes(compute) -> tuple[Tensor, int]:
    """What it computes, and how many bytes wait for the walk back; in chunks, those of one chunk come on top."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = compute()
    return value, sum(kept.values())
