"""Identities of the mechanism: codes, constrained decoding, the bound of attention logits, and the reference."""

import torch
from torch.nn import functional as F

from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_11_chameleon import reference
from lessons.lesson_11_chameleon.model import BlockDesign, generate_mixed, logit_bounds, measure_magnitudes, split_spans
from lessons.lesson_11_chameleon.model.head_norm import HeadNorm
from lessons.lesson_11_chameleon.model.image_tokenizer import ImageTokenizer, TokenizerConfig
from lessons.lesson_11_chameleon.model.quantizer import nearest_codes, straight_through
from lessons.lesson_11_chameleon.model.toy_chameleon import ToyChameleon
from shared.course.context import RunContext
from shared.torch_conversion import max_abs_difference
from shared.transformer import Sampling

ROWS = 16


def check_mechanism(context: RunContext) -> dict[str, float]:
    """Return numbers that must be 0, up to rounding; only the seed is used.

    code_mismatches        codes that change on the way to token ids and back
    incomplete_images      generated images of an untrained decoder without exactly 64 codes between their markers
    logits_above_bound     attention heads of that decoder whose largest logit exceeds the bound of QK-norm
    gradient_difference    between the gradients before and after the quantizer, through the straight-through estimator
    shift_difference       between cross-entropy with all logits raised by a constant, and without
    reference_mismatches   nearest codes that differ between the pure-Python and the PyTorch version
    """
    torch.manual_seed(context.seed)
    image_tokenizer = ImageTokenizer(TokenizerConfig(codebook_size=64, width=16))
    sizes = {"width": 32, "depth": 2, "mlp_dim": 64}
    model = ToyChameleon.build(load_language_model()[1], image_tokenizer, BlockDesign(), **sizes)
    model.decoder.eval()
    return {
        "code_mismatches": float(code_mismatches(model)),
        "incomplete_images": float(incomplete_images(model)),
        "logits_above_bound": float(logits_above_bound(model)),
        "gradient_difference": gradient_difference(),
        "shift_difference": shift_difference(),
        "reference_mismatches": float(reference_mismatches()),
    }


def code_mismatches(model: ToyChameleon) -> int:
    """Count codes that change on the way to token ids and back."""
    codes = torch.randint(model.vocabulary.codebook_size, (ROWS, model.vocabulary.image_tokens))
    rows = model.vocabulary.image_token_ids(codes)
    return sum(
        int((split_spans(row, model.vocabulary)[0].values != own).sum()) for row, own in zip(rows, codes, strict=True)
    )


def incomplete_images(model: ToyChameleon) -> int:
    """Count images of free generation that are not complete; each text begins with an image's begin token."""
    begin, _ = model.vocabulary.markers()
    prompts = [torch.cat([model.text("a ", begin=True), torch.tensor([begin])]) for _ in range(ROWS)]
    rows = generate_mixed(model.decoder, model.vocabulary, prompts, Sampling(100, temperature=1.0))
    errors = 0
    for prompt, row in zip(prompts, rows, strict=True):
        try:
            split_spans(torch.cat([prompt, row]), model.vocabulary)
        except ValueError:
            errors += 1
    return errors


@torch.no_grad()
def logits_above_bound(model: ToyChameleon) -> int:
    """Count layers whose largest attention logit exceeds the bound that their gains and biases give."""
    above = 0
    token_ids = torch.randint(model.vocabulary.vocab_size, (ROWS, 40))
    for block in model.decoder.blocks:
        for norm in (block.attention.query_norm, block.attention.key_norm):
            assert isinstance(norm, HeadNorm)
            norm.weight.normal_(1.0, 0.5)
            norm.bias.normal_(0.0, 0.5)
    largest = measure_magnitudes(model.decoder, token_ids).attention_logits
    for value, block in zip(largest, model.decoder.blocks, strict=True):
        bound = logit_bounds(*block.attention.query_norm.per_head, *block.attention.key_norm.per_head).max()
        above += int(value > bound)
    return above


def gradient_difference() -> float:
    """Return the largest difference between the gradients of the quantized vectors and of the encoder's."""
    vectors = torch.randn(ROWS, 5, requires_grad=True)
    quantized = torch.randn(9, 5)[nearest_codes(vectors.detach(), torch.randn(9, 5))]
    upstream = torch.randn(ROWS, 5)
    (straight_through(vectors, quantized) * upstream).sum().backward()
    assert vectors.grad is not None
    return max_abs_difference(vectors.grad, upstream)


def shift_difference() -> float:
    """Return the change of the cross-entropy when a constant is added to all logits, which the z-loss prevents."""
    logits, targets = torch.randn(ROWS, 50).double(), torch.randint(50, (ROWS,))
    return abs(float(F.cross_entropy(logits + 7.0, targets) - F.cross_entropy(logits, targets)))


def reference_mismatches() -> int:
    """Count nearest codes that differ between the pure-Python and the PyTorch version."""
    vectors, codebook = torch.randn(100, 4).double(), torch.randn(12, 4).double()
    expected = torch.tensor(reference.nearest_codes(vectors.tolist(), codebook.tolist()))
    return int((nearest_codes(vectors, codebook) != expected).sum())
