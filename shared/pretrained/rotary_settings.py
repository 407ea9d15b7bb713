"""Map the published settings of rotary positions, which many classes share, to ours, and back.

A file states them in one of two forms: `rope_theta` and `rope_scaling` beside each other (version 4 of transformers),
or both in `rope_parameters` (version 5). The second form is also read from under the name of the first.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from shared.errors import CourseError
from shared.pretrained.config_mapping import Derived, Row, Setting, read_part, read_settings, write_settings
from shared.pretrained.setting_values import flag, integer, number, optional
from shared.transformer.decoder import DecoderConfig
from shared.transformer.rotary_scaling import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    RotaryScaling,
    YarnScaling,
)

PART = "the rotary scaling"
FACTOR = Setting("factor", "factor", accept=number(above=True))
ORIGINAL = Setting("original_max_position_embeddings", "original_context", accept=integer())
SCALINGS: dict[str, tuple[Callable[..., RotaryScaling], list[Row]]] = {
    "linear": (LinearScaling, [FACTOR]),
    # The original context is `max_position_embeddings`, which is no setting of the scaling.
    "dynamic": (DynamicScaling, [FACTOR]),
    "llama3": (
        Llama3Scaling,
        [
            FACTOR,
            Setting("low_freq_factor", "low_frequency_factor", accept=number(above=True)),
            Setting("high_freq_factor", "high_frequency_factor", accept=number(above=True)),
            ORIGINAL,
        ],
    ),
    "yarn": (
        YarnScaling,
        [
            FACTOR,
            ORIGINAL,
            Setting("beta_fast", "fast_rotations", 32.0, accept=optional(number(above=True))),
            Setting("beta_slow", "slow_rotations", 1.0, accept=optional(number(above=True))),
            Setting("attention_factor", "attention_factor", None, accept=optional(number(above=True))),
            Setting("mscale", "mscale", None, accept=optional(number())),
            Setting("mscale_all_dim", "mscale_all_dim", None, accept=optional(number())),
            Setting("truncate", "truncate", True, accept=flag),
        ],
    ),
}
"""For each published type of scaling: our class and the table of its settings."""


def read_rotary(config: Mapping[str, Any], max_positions: int, default_base: float = 10_000.0) -> dict[str, Any]:
    """Return our config's `rotary_base` and `rotary_scaling` from all settings that the published classes read.

    `rope_scaling` wins over `rope_parameters`; each may hold the base and the type, which old files call `type`. A
    base beside them counts where they hold none. The trained length beside them wins over theirs, and without either,
    it is `max_positions`. A config without a base has the class's `default_base`.

    Raises CourseError for a type of scaling that is not implemented (by its name), for malformed settings, for settings
    per type of layer, and for heads of which only a part is rotated.
    """
    rotary = read_part(config, "rope_scaling") or read_part(config, "rope_parameters") or {}
    if per_layer := [name for name in ("full_attention", "sliding_attention") if name in rotary]:
        raise CourseError(
            f"rope_parameters has settings per type of layer ({', '.join(per_layer)}); supported are one rotary base "
            "and one scaling for all layers"
        )
    beside = {name: config[name] for name in ("rope_theta", "partial_rotary_factor") if name in config}
    rotary = beside | rotary
    base_settings: list[Row] = [
        Setting("rope_theta", "base", default_base, accept=number(above=True)),
        Derived("partial_rotary_factor", lambda _: 1.0),
    ]
    base = float(read_settings(base_settings, rotary, "the rotary position")["base"])
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind == "default":
        return {"rotary_base": base, "rotary_scaling": None}
    if not isinstance(kind, str) or kind not in SCALINGS:
        raise CourseError(
            f"the rotary scaling (rope_parameters or rope_scaling) is {kind!r}; supported are "
            f"{', '.join(map(repr, SCALINGS))} and 'default'"
        )
    original = ORIGINAL.published
    rotary = {original: max_positions} | rotary | ({original: config[original]} if original in config else {})
    if kind == "yarn" and rotary.get("factor", 0) is None:  # as in DeepSeek-V3's class
        rotary["factor"] = max_positions / read_settings([ORIGINAL], rotary, PART)["original_context"]
    return {"rotary_base": base, "rotary_scaling": _read_scaling(kind, rotary, base, max_positions)}


def _read_scaling(kind: str, rotary: Mapping[str, Any], base: float, max_positions: int) -> RotaryScaling:
    build, settings = SCALINGS[kind]
    values = read_settings(settings, rotary, PART)
    if kind == "dynamic":
        values["original_context"] = max_positions
    if kind == "llama3" and values["low_frequency_factor"] >= values["high_frequency_factor"]:
        raise CourseError(
            f"low_freq_factor {values['low_frequency_factor']} of the rotary scaling is not below "
            f"high_freq_factor {values['high_frequency_factor']}"
        )
    if kind == "yarn":
        values["fast_rotations"] = values["fast_rotations"] or 32.0
        values["slow_rotations"] = values["slow_rotations"] or 1.0
        if values["fast_rotations"] < values["slow_rotations"]:
            raise CourseError(
                f"beta_fast {values['fast_rotations']} of the rotary scaling is below beta_slow "
                f"{values['slow_rotations']}; expected at least as many rotations"
            )
        if base <= 1:
            raise CourseError(f"rope_theta is {base}; the rotary scaling 'yarn' needs a base above 1")
    return build(**values)


def write_rotary(config: DecoderConfig) -> dict[str, Any]:
    """Return the published `rope_parameters` of a decoder; settings that are None are left out."""
    base, scaling = config.rotary_base, config.rotary_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": base}
    kind = next(kind for kind, (build, _) in SCALINGS.items() if build is type(scaling))
    settings = write_settings(SCALINGS[kind][1], asdict(scaling))
    return {
        "rope_type": kind,
        "rope_theta": base,
        **{name: value for name, value in settings.items() if value is not None},
    }
