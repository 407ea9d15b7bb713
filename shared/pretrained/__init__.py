"""Read and write published checkpoints in the Hugging Face folder layout; README.md has an example.

checkpoint      read `config.json` and the tensors of `model.safetensors`, in one file or in shards
config_mapping  published settings ↔ the fields of our configs
weight_names    published weight names ↔ the names in our models
folder          load a model's weights from a folder, save a model as one
digest          one hash of all weights of a module

Nothing is ever unpickled.
"""

from shared.pretrained.checkpoint import Checkpoint, read_config
from shared.pretrained.config_mapping import Fixed, Setting, read_settings, write_settings
from shared.pretrained.folder import load_weights, named_weights, save_pretrained
from shared.pretrained.weight_names import Join, Rearrange, Rename, Rule, Split, Stack, Tie, WeightNames, with_prefix

__all__ = [
    "Checkpoint",
    "Fixed",
    "Join",
    "Rearrange",
    "Rename",
    "Rule",
    "Setting",
    "Split",
    "Stack",
    "Tie",
    "WeightNames",
    "load_weights",
    "named_weights",
    "read_config",
    "read_settings",
    "save_pretrained",
    "with_prefix",
    "write_settings",
]
