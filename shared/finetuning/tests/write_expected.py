"""Run `peft` and `bitsandbytes` and store their results, with which the tests compare.

python -m shared.finetuning.tests.write_expected        (needs requirements/oracles.txt)
"""

import json
import tempfile
from pathlib import Path

import bitsandbytes.functional
import peft
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from shared.finetuning.tests.adapted_models import published_llama, randomize, tokens

FOLDER = Path(__file__).parent / "expected"


def llama() -> nn.Module:
    torch.manual_seed(3)
    return randomize(published_llama()).eval()


def write_adapters(name: str, **settings) -> None:
    model = peft.get_peft_model(llama(), peft.LoraConfig(lora_dropout=0.1, **settings))
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    model.eval()
    model.save_pretrained(FOLDER / name)
    (FOLDER / name / "README.md").unlink()
    config = FOLDER / name / "adapter_config.json"
    # PEFT writes a set in any order; sorted, the file does not change from run to run.
    content = json.loads(config.read_text())
    content["target_modules"].sort()
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    with torch.no_grad():
        save_file({"logits": model(tokens()).logits}, FOLDER / name / "logits.safetensors")


def write_nf4() -> None:
    torch.manual_seed(0)
    stored = {}
    for name, shape in (("whole", (80, 256)), ("ragged", (7, 33))):
        weight = torch.randn(shape) * 0.05
        weight[0, : min(64, shape[1])] *= 40
        packed, state = bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4")
        stored |= {f"{name}.weight": weight, f"{name}.packed": packed.flatten(), f"{name}.largest": state.absmax}
        stored[f"{name}.again"] = bitsandbytes.functional.dequantize_4bit(packed, state)[:7]
    difference = stored["whole.largest"] - stored["whole.largest"].mean()
    # The library's compiled CPU kernel looks up the nearest level in a table of 65,536 and is sometimes off by one; for
    # float64 it searches all 256 levels, as its GPU kernel does.
    levels = bitsandbytes.functional.create_dynamic_map()
    codes, groups = torch.ops.bitsandbytes.quantize_blockwise.default(difference.double(), levels, 256)
    stored |= {"codes": codes, "groups": groups, "levels": levels}
    save_file(stored, FOLDER / "nf4.safetensors")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        llama().save_pretrained(folder)
        save_file(load_file(Path(folder) / "model.safetensors"), FOLDER / "llama.safetensors")
    write_adapters("lora", r=4, lora_alpha=10, target_modules=["q_proj", "v_proj", "down_proj"])
    write_adapters("dora", r=3, lora_alpha=6, target_modules=["q_proj", "up_proj"], use_dora=True)
    write_adapters(
        "patterns",
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "o_proj"],
        rank_pattern={"layers.1.self_attn.o_proj": 2},
        alpha_pattern={"o_proj": 5},
        use_rslora=True,
    )
    write_nf4()


if __name__ == "__main__":
    main()
