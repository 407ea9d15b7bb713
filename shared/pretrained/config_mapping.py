"""Map the settings of a published `config.json` to the fields of our configs, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import CourseError

REQUIRED: Any = object()
"""The default of a setting that a config must contain."""


@dataclass(frozen=True)
class Setting:
    """One setting: its published name and the field of our config that holds it.

    default  value that the published class assumes when a config leaves the setting out
    also     older spellings of the published name, which are read but never written
    """

    published: str
    field: str
    default: Any = REQUIRED
    also: Sequence[str] = ()


@dataclass(frozen=True)
class Fixed:
    """A published setting of which our model supports one value; a config with another value is refused."""

    published: str
    value: Any


def _immutable(value: Any) -> Any:
    """Return a JSON list as a tuple, which a frozen dataclass can hold."""
    return tuple(value) if isinstance(value, list) else value


def read_settings(settings: Sequence[Setting | Fixed], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of our config from a published `config`.

    Raises one CourseError that lists every setting that is missing or not supported.
    """
    fields, problems = {}, []
    for setting in settings:
        if isinstance(setting, Fixed):
            if config.get(setting.published, setting.value) != setting.value:
                problems.append(
                    f"{setting.published} is {config[setting.published]!r}, supported is only {setting.value!r}"
                )
            continue
        spelling = next((name for name in (setting.published, *setting.also) if config.get(name) is not None), None)
        if spelling is None and setting.default is REQUIRED:
            problems.append(f"{setting.published} is missing")
        fields[setting.field] = setting.default if spelling is None else _immutable(config[spelling])
    if problems:
        raise CourseError("config.json does not fit this model: " + "; ".join(problems))
    return fields


def write_settings(settings: Sequence[Setting | Fixed], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the published settings, ready for `config.json`, from the fields of our config."""
    return {
        setting.published: setting.value if isinstance(setting, Fixed) else fields[setting.field]
        for setting in settings
    }
