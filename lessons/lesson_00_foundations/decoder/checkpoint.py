"""The small language model that later lessons keep frozen: train the headline arm, and keep it as a published folder.

python -m lessons.lesson_00_foundations.decoder.checkpoint        (or: make checkpoint-0)
"""

import argparse
import hashlib
import platform
import shutil
import tempfile
import time
from pathlib import Path

import torch

from data.toybox.heldout import VERSION
from lessons.lesson_00_foundations.decoder.arms import BEGIN, SHOTS, SPECIALS, small_model, train_decoder
from lessons.lesson_00_foundations.decoder.claims import STEPS
from shared.course.lesson import ROOT
from shared.tokenizers import load_tokenizer
from shared.training import load_weights

FOLDER = ROOT / "data" / "checkpoints" / "lesson_00_decoder"
COMMAND = "python -m lessons.lesson_00_foundations.decoder.checkpoint"


def make(folder: Path, *, seed: int, **settings: int) -> dict:
    """Train, and write `config.json`, `model.safetensors` (bfloat16), `tokenizer.json` and `PROVENANCE.md`; return what was measured."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as run:
        measured = train_decoder(seed=seed, data="toybox", device="cpu", folder=Path(run), resume=False, **settings)
        tokenizer = load_tokenizer(Path(run) / "tokenizer.json")
        model = load_weights(small_model(tokenizer.vocab_size), Path(run))
        # Half the bytes; what is measured above was measured before the rounding.
        model.to(torch.bfloat16).save_pretrained(folder, bos_token_id=tokenizer.specials[BEGIN])
        shutil.copyfile(Path(run) / "tokenizer.json", folder / "tokenizer.json")
    words = provenance(folder, measured, seed, settings, time.perf_counter() - start)
    (folder / "PROVENANCE.md").write_text(words, encoding="utf-8")
    return measured


def provenance(folder: Path, measured: dict, seed: int, settings: dict[str, int], seconds: float) -> str:
    """Where the files come from, what they were measured to do, and their hashes."""
    rows = {
        "bits a byte on new text (Kneser–Ney on the same)": f"{measured['bits_per_byte']:.3f} ({measured['ngram_bits_per_byte']:.3f})",
    }
    for kind, words in (("naming", "held-out rules of naming"), ("words", "held-out pairs of made-up words")):
        shown = " / ".join(f"{measured[f'held_out_{kind}_{shots}']:.0%}" for shots in SHOTS)
        rows[f"{words}: right after {', '.join(map(str, SHOTS))} examples"] = shown
    files = ("config.json", "model.safetensors", "tokenizer.json")
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    lines = [
        "# The decoder of lesson 0",
        "",
        f"A Llama of {measured['parameters']:,} parameters, trained by `{COMMAND} --seed {seed}` on {measured['training_tokens']:,} "
        "tokens of toy-world text and episodes by example; weights in bfloat16, in the layout of `LlamaForCausalLM`.",
        "",
        f"* parents: none; the toy world is `{VERSION}`, whose held-out combinations it has not read of",
        f"* settings: {', '.join(f'{name} {value}' for name, value in settings.items())}; seed {seed}",
        f"* special tokens: {', '.join(f'`{special}`' for special in SPECIALS)}; every document begins with the first, the others "
        "are for later lessons and untrained",
        f"* made in {seconds:.0f} s on one thread, Python {platform.python_version()}, PyTorch {torch.__version__}",
        "",
        "| measured before rounding to bfloat16 | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        "| file | SHA-256 |",
        "|---|---|",
        *(f"| `{name}` | `{value}` |" for name, value in hashes.items()),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train lesson 0's language model and keep it.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured = make(options.folder, seed=options.seed, **STEPS["cpu"])
    for name in ("bits_per_byte", "ngram_bits_per_byte", "held_out_naming_by_shots", "held_out_words_by_shots"):
        print(f"{name}: {measured[name]}")
    print(f"written to {options.folder}")


if __name__ == "__main__":
    main()
