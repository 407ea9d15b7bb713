"""How fast the decoder and the Vision Transformer train in bfloat16, and how much of the chip they use, beside `transformers`.

    python -m benchmarks.throughput

Each model is trained for a few steps by the course's own loop, alone on the machine's GPU, with and without torch.compile;
then the same model as `transformers` has it, by the same loop. What counts is the median of several spans of steps, after
those in which kernels are compiled and chosen. Without a GPU tiny models take their place: that shows that this runs, and
nothing else.

Model-FLOPs utilization (arXiv:2204.02311, appendix B): the products that the model needs, forward once and backward twice,
by what the chip's data sheet promises for dense bfloat16. What is computed twice to save memory does not count, nor what
causal attention leaves out.
"""

import gc
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.vit import HuggingFaceVisionTransformer
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from shared.training import Batches, RunOptions, TrainingConfig, train
from shared.transformer import Decoder, DecoderConfig

# FLOP a second, dense, in bfloat16 with float32 sums; reported in NVIDIA's data sheets (of the SXM modules).
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}


class HuggingFaceDecoder(nn.Module):
    """The same decoder in `transformers`: its Llama, with PyTorch's fused attention."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.width,
                intermediate_size=config.mlp_dim,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                num_key_value_heads=config.kv_heads,
                rms_norm_eps=config.norm_eps,
                tie_word_embeddings=config.tied,
                attn_implementation="sdpa",
                use_cache=False,
            )
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens).logits


def predict(model: nn.Module, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def classify(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return F.cross_entropy(model(images), labels)


@dataclass(frozen=True)
class Case:
    """A model's two makers, what it trains on, and the sizes that its attention's products follow from."""

    name: str
    makers: dict[str, Callable[[], nn.Module]]
    arrays: Callable[[torch.device], tuple[Tensor, ...]]
    loss: Callable
    batch: int
    tokens: int  # of a row, as attention sees them
    layers: int
    width: int  # of all heads together
    causal: bool


def decoder_case(config: DecoderConfig, batch: int, tokens: int) -> Case:
    return Case(
        f"decoder {config.width} wide, {config.depth} layers, {batch} × {tokens} tokens",
        {"ours": lambda: Decoder(config), "transformers": lambda: HuggingFaceDecoder(config)},
        lambda device: (torch.randint(config.vocab_size, (2 * batch, tokens + 1), device=device),),
        predict,
        batch,
        tokens,
        config.depth,
        config.width,
        causal=True,
    )


def vit_case(name: str, config: VisionTransformerConfig, batch: int) -> Case:
    (height, width), (rows, columns) = config.image_sides, config.grid
    return Case(
        f"{name}, {batch} images of {1 + rows * columns} tokens",
        {"ours": lambda: VisionTransformer(config), "transformers": lambda: HuggingFaceVisionTransformer(config)},
        lambda device: (
            torch.randn(2 * batch, config.channels, height, width, device=device),
            torch.randint(config.classes, (2 * batch,), device=device),
        ),
        classify,
        batch,
        1 + rows * columns,
        config.depth,
        config.width,
        causal=False,
    )


LARGE = (
    decoder_case(DecoderConfig(32_000, 768, 12, 12, 4, 2048), batch=16, tokens=1024),
    vit_case("ViT-B/16", VisionTransformerConfig(classes=1000), batch=128),
)
TINY = (
    decoder_case(DecoderConfig(31, 16, 2, 2, 1, 32), batch=4, tokens=8),
    vit_case("tiny ViT", VisionTransformerConfig(8, 4, 1, 16, 2, 2, 32, classes=3), batch=4),
)


def measure(compiled: Iterable[bool] = (False, True)) -> list[dict]:
    """Rows of name, ours, theirs, ratio (above 1 we are ahead) and unit: tokens/s, and on a GPU memory and utilization."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for case in LARGE if device.type == "cuda" else TINY:
        for compile in compiled:
            sides = [_trained(case, who, device, compile) for who in ("ours", "transformers")]
            name = f"{case.name}, bfloat16{', compiled' if compile else ''}"
            rows += [_row(name, unit, *(side[unit] for side in sides)) for unit in sides[0]]
    return rows


def _row(name: str, unit: str, ours: float, theirs: float) -> dict:
    ratio = theirs / ours if unit == "MB" else ours / theirs
    return {"name": name, "ours": ours, "theirs": theirs, "ratio": ratio, "unit": unit}


def _trained(case: Case, who: str, device: torch.device, compile: bool) -> dict[str, float]:
    """What a short training measures, by unit."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    model = case.makers[who]().to(device)
    batches = Batches(*case.arrays(device), batch_size=case.batch, seed=0)
    span, spans = (10, 7) if device.type == "cuda" else (1, 4)
    config = TrainingConfig(span * spans, 1e-4, precision="bfloat16", compile=compile, log_every=span)
    label = f"{who}{', compiled' if compile else ''}"
    history = train(
        model,
        batches,
        case.loss,
        config,
        run=RunOptions(device=device, label=label),
    ).history
    times = [after["seconds"] - before["seconds"] for before, after in pairwise(history)][1:]
    step = statistics.median(times) / span
    measured = {"tokens/s": case.batch * case.tokens / step}
    if device.type == "cuda":
        measured["MB"] = history[-1]["memory_mb"]
        peak = next((peak for chip, peak in PEAKS.items() if chip in torch.cuda.get_device_name()), None)
        if peak is not None:
            measured["% of the chip's FLOP/s"] = 100 * 3 * forward_flops(case, model, batches(0)) / step / peak
    return measured


@torch.no_grad()
def forward_flops(case: Case, model: nn.Module, batch: Tensor | tuple[Tensor, ...]) -> float:
    """The floating-point operations of one forward pass: of all matrices and convolutions, and of attention's two products."""
    products = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal products
        products += 2 * output.numel() * module.weight[0].numel()

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    case.loss(model, batch)
    for hook in hooks:
        hook.remove()
    attention = 2 * 2 * case.layers * case.batch * case.tokens**2 * case.width
    return products + attention * (0.5 if case.causal else 1.0)


def main() -> int:
    if not torch.cuda.is_available():
        print("there is no GPU here, so tiny models stand in: that this runs is all that their numbers say")
    for row in measure():
        print(
            f"{row['name']:<70} {row['ours']:12,.1f} {row['theirs']:12,.1f}  ×{row['ratio']:.2f}  {row['unit']}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
