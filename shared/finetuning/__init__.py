"""Teaching a trained model something new, for less: small corrections, few bits, answers and preferences."""

from shared.finetuning.adapters import (
    AdapterConfig,
    adapter_parameter_names,
    add_adapters,
    disable_adapters,
    find_adapters,
    merge_adapters,
    merge_and_remove_adapters,
    remove_adapters,
    unmerge_adapters,
)
from shared.finetuning.conversations import (
    ConversationBatches,
    SupervisedRecipe,
    answer_questions,
    question_and_answer,
    supervised_loss,
    train_on_conversations,
)
from shared.finetuning.distillation import distillation_loss
from shared.finetuning.int8 import Int8Linear, quantize_int8
from shared.finetuning.lora import DoRALinear, LoRALinear
from shared.finetuning.memory import TrainingBytes, trainable_fraction, training_bytes
from shared.finetuning.nf4 import NF4Linear, dequantize_nf4, normal_float_levels, quantize_nf4
from shared.finetuning.peft_layout import load_adapters, published_adapter_names, save_adapters
from shared.finetuning.preference import dpo_loss, response_log_probability
from shared.finetuning.preference_training import (
    PreferenceBatches,
    PreferencePairs,
    PreferenceRecipe,
    preference_lead,
    preference_loss,
    preference_pairs,
    reference_log_probabilities,
    train_on_preferences,
)
from shared.finetuning.quantize import quantize_linears
from shared.finetuning.quantized_linear import QuantizedLinear
from shared.finetuning.supervised import collate, sft_loss

__all__ = [
    "AdapterConfig",
    "ConversationBatches",
    "DoRALinear",
    "Int8Linear",
    "LoRALinear",
    "NF4Linear",
    "PreferenceBatches",
    "PreferencePairs",
    "PreferenceRecipe",
    "QuantizedLinear",
    "SupervisedRecipe",
    "TrainingBytes",
    "adapter_parameter_names",
    "add_adapters",
    "answer_questions",
    "collate",
    "dequantize_nf4",
    "disable_adapters",
    "distillation_loss",
    "dpo_loss",
    "find_adapters",
    "load_adapters",
    "merge_adapters",
    "merge_and_remove_adapters",
    "normal_float_levels",
    "preference_lead",
    "preference_loss",
    "preference_pairs",
    "published_adapter_names",
    "quantize_int8",
    "quantize_linears",
    "quantize_nf4",
    "question_and_answer",
    "reference_log_probabilities",
    "remove_adapters",
    "response_log_probability",
    "save_adapters",
    "sft_loss",
    "supervised_loss",
    "train_on_conversations",
    "train_on_preferences",
    "trainable_fraction",
    "training_bytes",
    "unmerge_adapters",
]
