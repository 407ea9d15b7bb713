"""Published checkpoints in and out: the Hugging Face folder layout.

A folder holds `config.json` and `model.safetensors`. A lesson writes two small tables and is done:
what the settings are called there and here (`Setting`, `Fixed`), and what the weights are called
there and here (`Rename`, `Split`, `Join`, `Stack`, `Tie` in a `Table`). Both are read in either direction:

    SETTINGS = [
        Setting("hidden_size", "width", default=768),
        Fixed("hidden_act", "gelu"),
    ]
    TABLE = Table([
        Rename("embeddings.cls_token", "class_token", Rearrange("1 1 width -> width")),
        Rename("encoder.layer.{n}.layernorm_before.{leaf}", "blocks.{n}.attention_norm.{leaf}"),
        Split("encoder.layer.{n}.qkv.{leaf}", ["blocks.{n}.query.{leaf}", "blocks.{n}.key.{leaf}", "blocks.{n}.value.{leaf}"]),
    ])

    model = Model(Config(**read_settings(SETTINGS, read_config(folder))))
    load_weights(model, folder, TABLE)
    save_pretrained(folder, model, TABLE, write_settings(SETTINGS, asdict(model.config)))

Nothing is ever unpickled.
"""

from shared.pretrained.checkpoint import Checkpoint, read_config
from shared.pretrained.config_mapping import Fixed, Setting, read_settings, write_settings
from shared.pretrained.folder import load_weights, named_weights, save_pretrained
from shared.pretrained.weight_names import Join, Rearrange, Rename, Rule, Split, Stack, Table, Tie, under

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
    "Table",
    "Tie",
    "load_weights",
    "named_weights",
    "read_config",
    "read_settings",
    "save_pretrained",
    "under",
    "write_settings",
]
