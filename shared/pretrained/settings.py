"""What a published `config.json` calls its settings, and what we call them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import CourseError

REQUIRED = object()


@dataclass(frozen=True)
class Setting:
    """One setting under two names.

    default:  what the published class assumes when a config leaves the setting out, as many published ones do.
    also:     other spellings in which configs exist; read, never written.
    """

    public: str
    ours: str
    default: Any = REQUIRED
    also: Sequence[str] = ()


@dataclass(frozen=True)
class Fixed:
    """A setting with which our model has only one way to go: another value in a config is refused."""

    public: str
    value: Any


def _as_read(value: Any) -> Any:
    """JSON knows lists only, where a frozen config wants something that cannot change."""
    return tuple(value) if isinstance(value, list) else value


def read_settings(settings: Sequence[Setting | Fixed], config: Mapping[str, Any]) -> dict[str, Any]:
    """The published `config` in our names. Raises one CourseError that lists every setting that does not fit."""
    ours, problems = {}, []
    for setting in settings:
        if isinstance(setting, Fixed):
            if config.get(setting.public, setting.value) != setting.value:
                problems.append(f"{setting.public} is {config[setting.public]!r}, supported is only {setting.value!r}")
            continue
        spelling = next((name for name in (setting.public, *setting.also) if config.get(name) is not None), None)
        if spelling is None and setting.default is REQUIRED:
            problems.append(f"{setting.public} is missing")
        ours[setting.ours] = setting.default if spelling is None else _as_read(config[spelling])
    if problems:
        raise CourseError("config.json does not fit this model: " + "; ".join(problems))
    return ours


def write_settings(settings: Sequence[Setting | Fixed], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings under their published names, to be written as `config.json`."""
    return {setting.public: setting.value if isinstance(setting, Fixed) else ours[setting.ours] for setting in settings}
