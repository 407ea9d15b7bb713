"""Teaching a trained model something new, for less: small corrections, few bits, answers and preferences."""

from shared.finetuning.adapters import (
    AdapterConfig,
    adapter_parameter_names,
    find_adapters,
    disable_adapters,
    add_adapters,
    merge_and_remove_adapters,
    merge_adapters,
    remove_adapters,
    unmerge_adapters,
)
from shared.finetuning.distillation import distillation_loss
from shared.finetuning.quantized_linear import QuantizedLinear
from shared.finetuning.int8 import Int8Linear, quantize_int8
from shared.finetuning.lora import DoRALinear, LoRALinear
from shared.finetuning.memory import TrainingBytes, trainable_fraction, training_bytes
from shared.finetuning.nf4 import NF4Linear, dequantize_nf4, normal_float_levels, quantize_nf4
from shared.finetuning.peft_layout import load_adapters, save_adapters
from shared.finetuning.preference import response_log_probability, dpo_loss
from shared.finetuning.quantize import quantize_linears
from shared.finetuning.supervised import sft_loss, collate

__all__ = [
    "AdapterConfig",
    "DoRALinear",
    "QuantizedLinear",
    "Int8Linear",
    "LoRALinear",
    "NF4Linear",
    "TrainingBytes",
    "adapter_parameter_names",
    "find_adapters",
    "disable_adapters",
    "add_adapters",
    "response_log_probability",
    "sft_loss",
    "collate",
    "dequantize_nf4",
    "distillation_loss",
    "dpo_loss",
    "merge_and_remove_adapters",
    "load_adapters",
    "merge_adapters",
    "normal_float_levels",
    "quantize_int8",
    "quantize_linears",
    "quantize_nf4",
    "remove_adapters",
    "save_adapters",
    "trainable_fraction",
    "training_bytes",
    "unmerge_adapters",
]
