"""Identities that must hold up to rounding before anything is trained."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from lessons.lesson_02_clip import reference
from lessons.lesson_02_clip.experiment import distributed_program
from lessons.lesson_02_clip.model import (
    CLIP,
    CLIPConfig,
    TextEncoderConfig,
    clip_vision_config,
    encode_in_chunks,
    info_nce,
    sigmoid_loss,
)
from shared.course.context import RunContext
from shared.distributed.launch import launch
from shared.errors import CourseError
from shared.stdlib.creation import normal
from shared.stdlib.tensor import Tensor as PlainTensor
from shared.torch_conversion import max_abs_difference, to_torch


def check_identities(context: RunContext) -> dict:
    """Return the largest absolute difference of each identity, and the memory that chunks save."""
    torch.manual_seed(context.seed)
    return {
        "manual_gradient_difference": manual_gradient_difference(context.seed),
        **reference_differences(context.seed),
        "processes_difference": processes_difference(),
        **measure_chunks(),
    }


# ── Gradients and the reference ───────────────────────────────────────────────────────────────────────────────────────


def manual_gradient_difference(seed: int) -> float:
    """Compare manually derived gradients of both losses with those of the engine and of PyTorch."""
    random = Random(seed)
    images, texts = (reference.unit_vectors(normal((6, 5), 1.0, random)) for _ in range(2))
    scalars = [PlainTensor([value], ()) for value in (1.7, -2.0)]
    largest = 0.0
    for engine_loss, manual_gradient, torch_loss, count in (
        (reference.info_nce, reference.info_nce_gradient, info_nce, 1),
        (reference.sigmoid_loss, reference.sigmoid_gradient, sigmoid_loss, 2),
    ):
        arguments = [PlainTensor(t.data, t.shape, True) for t in (images, texts, *scalars[:count])]
        engine_loss(*arguments).backward()
        torch_arguments = [to_torch(tensor).requires_grad_() for tensor in arguments]
        torch_loss(torch_arguments[0], torch_arguments[1], torch_arguments[2].exp(), *torch_arguments[3:]).backward()
        for manual, engine, other in zip(manual_gradient(*arguments), arguments, torch_arguments, strict=True):
            gradients = torch.tensor([manual.data, engine.grad, other.grad.flatten().tolist()], dtype=torch.float64)
            largest = max(largest, (gradients - gradients[1]).abs().max().item())
    return largest


def to_pytorch_model(plain: reference.CLIP) -> CLIP:
    """Return the pure-Python model in PyTorch: one block per encoder, outputs averaged over patches and words."""
    width, embedding = len(plain.image_projection.weight.tolist()[0]), plain.image_projection.weight.shape[0]
    sizes = {"width": width, "depth": 1, "heads": plain.image_encoder.attention.heads, "mlp_dim": 2 * width}
    common = sizes | {"activation": "gelu", "norm_eps": 1e-6, "pooling": "mean"}
    image = clip_vision_config(
        image_size=reference.SIZE,
        patch_size=reference.PATCH,
        class_token=False,
        patch_bias=True,
        pre_norm=False,
        **common,
    )
    text = TextEncoderConfig(
        vocab_size=len(reference.VOCABULARY), context_length=reference.LONGEST, causal=False, **common
    )
    model = CLIP(CLIPConfig(image, text, embedding)).double()
    names = {name: pytorch_name(name) for name in plain.parameters()}
    weights = {names[name]: to_torch(parameter) for name, parameter in plain.parameters().items() if names[name]}
    model.load_state_dict(weights)
    return model


def pytorch_name(name: str) -> str | None:
    """Return the PyTorch name of a parameter of the reference; None for the bias of the sigmoid loss."""
    if name == "bias":
        return None
    for plain, pytorch in (
        ("patches.", "image_encoder.patch_embedding.project."),
        ("words.", "text_encoder.embedding."),
    ):
        name = name.replace(plain, pytorch)
    for part in ("attention_norm.", "mlp_norm.", "attention."):
        name = name.replace(f"encoder.{part}", f"encoder.blocks.0.{part}")
    for part in ("up.", "down."):
        name = name.replace(f"encoder.{part}", f"encoder.blocks.0.mlp.{part}")
    return name


def reference_differences(seed: int) -> dict[str, float]:
    """Compare vectors and gradients of the pure-Python and the PyTorch model with the same weights, in float64."""
    random = Random(seed)
    plain = reference.CLIP(random)
    for parameter in plain.parameters().values():
        parameter.data = normal(parameter.shape, 0.4, random).data
    model = to_pytorch_model(plain)
    scenes = [reference.scene_at("train", seed, index, (1, 1)) for index in range(5)]
    pixels = [reference.scene_pixels(scene) for scene in scenes]
    captions = [reference.scene_caption(scene) for scene in scenes]

    plain_vectors = plain.encode_images(pixels), plain.encode_texts(captions)
    plain.loss(*plain_vectors, "info-nce").backward()
    images = (
        torch.tensor(pixels, dtype=torch.float64).reshape(-1, reference.SIZE, reference.SIZE, 3).permute(0, 3, 1, 2)
    )
    token_ids = torch.tensor([reference.tokenize(caption) for caption in captions])
    vectors = model.encode_images(images), model.encode_texts(token_ids)
    model.loss(*vectors).backward()

    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    names = {name: pytorch_name(name) for name in plain.parameters()}
    return {
        "reference_difference": max(
            max_abs_difference(to_torch(one), other) for one, other in zip(plain_vectors, vectors, strict=True)
        ),
        "reference_gradient_difference": max(
            max_abs_difference(parameter.grad, gradients[names[name]])
            for name, parameter in plain.parameters().items()
            if names[name]
        ),
    }


# ── Large batches ─────────────────────────────────────────────────────────────────────────────────────────────────────


def processes_difference() -> float:
    """Compare both losses and all gradients of a batch in one process with those of the batch over two processes."""
    with tempfile.TemporaryDirectory() as folder:
        finished = launch(2, Path(distributed_program.__file__), folder)
        if finished.returncode:
            raise CourseError(f"the two processes of the distributed losses failed:\n{finished.stderr[-2000:]}")
        distributed = json.loads((Path(folder) / distributed_program.FILE_NAME).read_text())
    single = distributed_program.losses_and_gradients()
    return max(abs(a - b) for name, values in single.items() for a, b in zip(values, distributed[name], strict=True))


def measure_chunks() -> dict[str, float]:
    """Compare gradients and stored activations of a batch of 64 in chunks of 8 with those of the whole batch."""
    model, images, token_ids = distributed_program.small_clip_and_batch(64)
    gradients, stored_bytes = [], []
    for chunk in (64, 8):
        model.zero_grad()
        loss, size = count_stored_bytes(lambda chunk=chunk: chunked_loss(model, images, token_ids, chunk))
        loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        stored_bytes.append(size)
    return {
        "chunk_difference": (gradients[0] - gradients[1]).abs().max().item(),
        "chunk_memory_fraction": stored_bytes[1] / stored_bytes[0],
    }


def chunked_loss(model: CLIP, images: Tensor, token_ids: Tensor, chunk: int) -> Tensor:
    """Return the loss of a batch that is encoded `chunk` rows at a time, or as a whole if it is one chunk."""
    if chunk == len(images):
        return model.loss(model.encode_images(images), model.encode_texts(token_ids))
    return model.loss(
        encode_in_chunks(model.encode_images, images, chunk), encode_in_chunks(model.encode_texts, token_ids, chunk)
    )


def count_stored_bytes(compute: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """Return the result and the bytes stored for the backward pass; with chunks, those of one chunk are added later."""
    sizes: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        value = compute()
    return value, sum(sizes.values())
