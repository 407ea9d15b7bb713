"""Teaching a trained model something new, for less: small corrections, few bits, answers and preferences."""

from shared.finetuning.adapters import (
    AdapterConfig,
    adapter_names,
    adapters_in,
    adapters_off,
    add_adapters,
    fold_adapters,
    merge_adapters,
    remove_adapters,
    unmerge_adapters,
)
from shared.finetuning.distillation import distillation_loss
from shared.finetuning.frozen import FrozenLinear
from shared.finetuning.int8 import Int8Linear, quantize_int8
from shared.finetuning.lora import DoRALinear, LoRALinear
from shared.finetuning.memory import TrainingBytes, share_that_learns, training_bytes
from shared.finetuning.nf4 import NF4Linear, dequantize_nf4, normal_float_levels, quantize_nf4
from shared.finetuning.peft_layout import load_adapters, save_adapters
from shared.finetuning.preference import answer_log_probability, dpo_loss
from shared.finetuning.quantize import quantize_linears
from shared.finetuning.supervised import answer_loss, collate

__all__ = [
    "AdapterConfig",
    "DoRALinear",
    "FrozenLinear",
    "Int8Linear",
    "LoRALinear",
    "NF4Linear",
    "TrainingBytes",
    "adapter_names",
    "adapters_in",
    "adapters_off",
    "add_adapters",
    "answer_log_probability",
    "answer_loss",
    "collate",
    "dequantize_nf4",
    "distillation_loss",
    "dpo_loss",
    "fold_adapters",
    "load_adapters",
    "merge_adapters",
    "normal_float_levels",
    "quantize_int8",
    "quantize_linears",
    "quantize_nf4",
    "remove_adapters",
    "save_adapters",
    "share_that_learns",
    "training_bytes",
    "unmerge_adapters",
]
