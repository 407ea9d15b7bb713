"""Generation with a KV cache: the course's decoder in float32 and with eight-bit weights, against `transformers`.

    python -m benchmarks.generation

One text is continued greedily on one CPU thread. The baseline of every row is the same model of `transformers` in
float32. The last rows state what eight-bit weights cost: the perplexity of lesson 0's shipped decoder on held-out text
of the toy world, against its float32 weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from benchmarks.baselines import HuggingFaceDecoder
from benchmarks.report import Row, print_rows
from benchmarks.timing import time_in_turns
from data.toybox.documents import documents
from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model.evaluation import encode_documents
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from shared.finetuning import Int8Linear, quantize_linears
from shared.finetuning.int8 import PACKED_ROWS
from shared.transformer import Decoder, DecoderConfig, Sampling, generate


def linear_layers(config: DecoderConfig) -> tuple[str, ...]:
    """Return patterns of all linear layers; an output layer that shares the embedding's weight stays in float32."""
    return ("blocks.*",) if config.tied else ("blocks.*", "output")


@dataclass(frozen=True)
class Case:
    """One size of model, the number of new tokens, and the number of rounds to measure."""

    name: str
    config: DecoderConfig
    new_tokens: int
    rounds: int


CASES = (
    Case("512 wide, 6 layers", DecoderConfig(4096, 512, 6, 8, 4, 1408), new_tokens=64, rounds=5),
    Case("1,024 wide, 8 layers", DecoderConfig(4096, 1024, 8, 16, 8, 2816), new_tokens=32, rounds=5),
)


def measure(cases: tuple[Case, ...] = CASES, texts: int = 100) -> list[Row]:
    """Return rows in tokens/s per size of model, and the perplexity of eight-bit weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [row for case in cases for row in _speed(case)] + [_perplexity(texts)]
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _speed(case: Case) -> list[Row]:
    torch.manual_seed(0)
    decoder, int8 = Decoder(case.config).eval(), Decoder(case.config).eval()
    quantize_linears(int8, Int8Linear, linear_layers(case.config))
    baseline = HuggingFaceDecoder(case.config).model.eval()
    prompt = torch.randint(case.config.vocab_size, (16,))

    def continue_with(model: Decoder) -> list[Tensor]:
        return generate(model, [prompt], Sampling(case.new_tokens))

    timings = time_in_turns(
        {
            "float32": lambda: continue_with(decoder),
            "int8": lambda: continue_with(int8),
            "transformers": lambda: baseline.generate(
                prompt[None], max_new_tokens=case.new_tokens, do_sample=False, use_cache=True, eos_token_id=None
            ),
        },
        case.rounds,
        warmup=1,
    )
    rates = {name: 1000 * case.new_tokens / timing.median_ms for name, timing in timings.items()}
    return [
        Row.of_rate(f"decode, {case.name}, {weights}", rates[weights], rates["transformers"], "tokens/s")
        for weights in ("float32", "int8")
    ]


def _perplexity(texts: int) -> Row:
    model, tokenizer = load_language_model()
    encoded = [torch.tensor(each) for each in encode_documents(tokenizer, documents("validation", TEST_SEED, texts))]
    full = perplexity(model, encoded)
    quantize_linears(model, Int8Linear, linear_layers(model.config))
    return Row.of_cost("perplexity of lesson 0's decoder, int8 against float32", perplexity(model, encoded), full, "")


@torch.no_grad()
def perplexity(model: Decoder, texts: Sequence[Int[Tensor, "_"]]) -> float:
    """Return the perplexity per token, with few tokens per pass, as in generation: then the packed product is used."""
    nats, tokens = 0.0, 0
    for text in texts:
        cache = model.new_cache(1, len(text))
        logits = torch.cat([model(piece[None], cache=cache)[0] for piece in text.split(PACKED_ROWS)])
        nats += F.cross_entropy(logits[:-1], text[1:], reduction="sum").item()
        tokens += len(text) - 1
    return math.exp(nats / tokens)


if __name__ == "__main__":
    print_rows(measure())
