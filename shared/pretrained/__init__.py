"""Read and write published checkpoints in the Hugging Face folder layout; README.md has an example.

checkpoint       read `config.json` and the tensors of `model.safetensors`, in one file or in shards
config_mapping   published settings ↔ the fields of our configs
rotary_settings  settings of rotary positions, which many classes share
setting_values   what the values of settings may be
weight_names     published weight names ↔ the names in our models
folder           load a model's weights from a folder, save a model as one
digest           one hash of all weights of a module

Nothing is ever unpickled.
"""

from shared.pretrained.checkpoint import Checkpoint, read_config, require_model_type
from shared.pretrained.config_mapping import (
    NO_EFFECT,
    UNSUPPORTED,
    Derived,
    Fixed,
    Row,
    Setting,
    Unused,
    build_config,
    read_part,
    read_settings,
    require_same,
    write_settings,
)
from shared.pretrained.folder import load_weights, named_weights, save_pretrained
from shared.pretrained.weight_names import Join, Rearrange, Rename, Rule, Split, Stack, Tie, WeightNames, with_prefix

__all__ = [
    "NO_EFFECT",
    "UNSUPPORTED",
    "Checkpoint",
    "Derived",
    "Fixed",
    "Join",
    "Rearrange",
    "Rename",
    "Row",
    "Rule",
    "Setting",
    "Split",
    "Stack",
    "Tie",
    "Unused",
    "WeightNames",
    "build_config",
    "load_weights",
    "named_weights",
    "read_config",
    "read_part",
    "read_settings",
    "require_model_type",
    "require_same",
    "save_pretrained",
    "with_prefix",
    "write_settings",
]
