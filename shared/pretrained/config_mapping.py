"""Map the settings of a published `config.json` to the fields of our configs, and back.

**A table has a row for every setting of its published class**, except for those in `NO_EFFECT`. A setting that the
table does not implement has a row with the class's default, and a config with another value is refused by name. So no
setting is ignored that would change the outputs. A key that the published class itself does not have has no effect
there either, and is ignored here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from shared.errors import CourseError
from shared.pretrained.setting_values import matching_default

REQUIRED: Any = object()
"""The default of a setting that a config must contain."""

NO_EFFECT = frozenset(
    {
        # Where a file comes from, in which form the published class returns its outputs, how fast it computes them
        *("transformers_version", "architectures", "name_or_path", "_name_or_path", "_commit_hash"),
        *("output_hidden_states", "output_attentions", "return_dict", "use_cache", "attn_implementation"),
        *("dtype", "torch_dtype", "chunk_size_feed_forward", "pretraining_tp"),
        # Names of tasks and classes; a classifier's reader counts the classes
        *("id2label", "label2id", "num_labels", "problem_type", "is_encoder_decoder"),
        *("use_decoder_only_language_model",),
        # Initial weights, which those of the file replace
        *("initializer_range", "initializer_factor", "init_std", "logit_scale_init_value"),
        *("alpha_initializer", "alphas_initializer_range"),
        # Training only
        *("dropout", "attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "layerdrop"),
        *("freeze_text_layers", "freeze_text_module_exceptions", "freeze_lm_head", "freeze_vision_layers"),
        *("freeze_vision_module_exceptions",),
        # Generation and tokenization; a table that pools at one of these tokens has its own row
        *("bos_token_id", "eos_token_id", "pad_token_id", "image_seq_length"),
        # Heads and feature pyramids of other classes with the same config
        *("encoder_stride", "apply_layernorm", "reshape_hidden_states"),
        *("_out_features", "_out_indices", "out_features", "out_indices", "stage_names"),
    }
)
"""Settings of published classes that cannot change the outputs of a forward pass in evaluation mode."""

UNSUPPORTED = ("quantization_config", "per_layer_config", "tie_last_hidden_states", "pruned_heads")
"""Settings of every published class that change its weights or outputs and are not implemented; null or empty is."""

LARGEST_SIZES = {
    r"layers$|depth$": 1_000,
    r"experts$|experts_per_tok$|_group$": 100_000,
    r"heads$|head_dim$|channels$|patch_size$|register_tokens$|query_tokens$|latents$": 10_000,
    r"hidden_size$|intermediate_size$|projection_size$|projection_dim$|embed_dim$|ffn_dim$|image_size$": 1_000_000,
    r"lora_rank$": 1_000_000,
    r"vocab_size$|position_embeddings$|labels$": 100_000_000,
}
"""The greatest value of each kind of size: a multiple of what any published model has."""


@dataclass(frozen=True)
class Setting:
    """One setting: its published name and the field of our config that holds it.

    default  value that the published class assumes when a config leaves the setting out
    also     other spellings, which are read (and win, as in the published class) but never written
    accept   converts a value of the file, or raises ValueError with what was expected; without it, the type of the
             default is expected, and null only if that is the default
    """

    published: str
    field: str
    default: Any = REQUIRED
    also: Sequence[str] = ()
    accept: Callable[[Any], Any] | None = None

    def convert(self, value: Any) -> Any:
        """Return the value for our config. Raises ValueError with what was expected."""
        return (self.accept or matching_default(self.default))(value)


@dataclass(frozen=True)
class Fixed:
    """A published setting of which our model supports one value, the class's default; other values are refused."""

    published: str
    value: Any


@dataclass(frozen=True)
class Derived:
    """A published setting that may only be null, left out, or what follows from the other fields of our config."""

    published: str
    value: Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Unused:
    """A setting that has no effect on the outputs of this class, though it may have one in other classes."""

    published: str


Row = Setting | Fixed | Derived | Unused


def read_settings(settings: Sequence[Row], config: Mapping[str, Any], part: str = "config.json") -> dict[str, Any]:
    """Return the fields of our config from a published `config`, which is the whole file or the named part of one.

    Raises one CourseError that lists every setting that is missing, malformed or not supported.
    """
    values, problems = {}, []
    for setting in settings:
        if isinstance(setting, Setting):
            spelling = next((name for name in (*setting.also, setting.published) if name in config), None)
            if spelling is None:
                values[setting.field] = setting.default
                if setting.default is REQUIRED:
                    problems.append(f"{setting.published} is missing")
                continue
            try:
                values[setting.field] = setting.convert(config[spelling])
                check_size(spelling, config[spelling])
            except ValueError as error:
                problems.append(f"{spelling} is {_abbreviated(config[spelling])}, expected {error}")
    supported = {row.published: row.value for row in settings if isinstance(row, Fixed)}
    if not problems:  # a value can follow from correct ones only, and null stands for it
        derived = [row for row in settings if isinstance(row, Derived) and config.get(row.published) is not None]
        supported |= {row.published: row.value(values) for row in derived}
    for name, value in supported.items():
        if not _equal(config.get(name, value), value):
            problems.append(f"{name} is {_abbreviated(config[name])}, supported is only {_abbreviated(value)}")
    problems += [
        f"{name} is {_abbreviated(config[name])}, which is not supported" for name in UNSUPPORTED if config.get(name)
    ]
    if problems:
        raise CourseError(f"{part} does not fit this model: " + "; ".join(problems))
    return values


def check_size(name: str, value: Any) -> None:
    """Raise ValueError for a size beyond all published models, for which the model would not fit into any memory."""
    limit = next((limit for pattern, limit in LARGEST_SIZES.items() if re.search(pattern, name)), None)
    if limit is not None and isinstance(value, int | float) and value > limit:
        raise ValueError(f"at most {limit:,}")


def write_settings(settings: Sequence[Row], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the published settings, ready for `config.json`, from the fields of our config."""
    published = {}
    for setting in settings:
        if isinstance(setting, Fixed):
            published[setting.published] = setting.value
        elif isinstance(setting, Setting):
            published[setting.published] = values[setting.field]
    return published


def read_part(config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return the settings of one part of a larger config, or None if there are none. Raises CourseError for others."""
    part = config.get(name)
    if part is not None and not isinstance(part, dict):
        raise CourseError(f"{name} is {_abbreviated(part)} in config.json; expected an object of settings, or null")
    return part


Config = TypeVar("Config")


def build_config(build: Callable[..., Config], **values: Any) -> Config:
    """Return our config, built from the fields that a file holds.

    Raises CourseError when they exclude each other, for which the config itself raises ValueError.
    """
    try:
        return build(**values)
    except ValueError as error:
        raise CourseError(f"config.json describes no model: {error}") from error


def require_same(written: Config, read: Config) -> None:
    """Raise CourseError unless a config, written and read again, is the one that was to be written.

    Every writer ends with this check, so that no folder is written that describes another model or none.
    """
    if written == read:
        return
    names = [field.name for field in fields(written)]  # type: ignore[arg-type]  # both are instances of a dataclass
    different = [
        f"{name} {getattr(written, name)!r} (it would be read as {getattr(read, name)!r})"
        for name in names
        if getattr(written, name) != getattr(read, name)
    ]
    raise CourseError(f"no published class supports {', '.join(different)}; other programs could not read the model")


def _equal(value: Any, supported: Any) -> bool:
    """Return whether two settings are equal; JSON has lists where a config has tuples."""
    if isinstance(supported, tuple):
        return isinstance(value, list | tuple) and tuple(value) == supported
    return value == supported


def _abbreviated(value: Any) -> str:
    """Return a setting for an error message, cut where it is long."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
