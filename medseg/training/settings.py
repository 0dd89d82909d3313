"""Settings as files: a YAML file or a preset's name, single settings put over it, the first fault in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from medseg.errors import ConfigError


def find_config(source: str | Path, presets: Path) -> Path:
    """A YAML file, or the preset of that name in the folder `presets`.

    Raises:
        ConfigError: neither is there.
    """
    for path in (Path(source), presets / f"{source}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(preset.stem for preset in presets.glob("*.yaml")))
    raise ConfigError(f"No config file or preset named {str(source)!r}; presets: {known}.")


def read_settings(path: Path) -> dict[str, Any]:
    """A YAML file's mapping.

    Raises:
        ConfigError: no YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} is not a mapping of settings.")
    return values


def only_given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are None: flags that nobody gave, which is not the same as a setting of null."""
    return {key: value for key, value in settings.items() if value is not None}


def put_setting(values: dict[str, Any], key: str, value: Any) -> None:
    """Put `loop.seed` and the like into a tree of settings.

    Raises:
        ConfigError: a part of the key is no group.
    """
    *groups, last = key.split(".")
    for group in groups:
        inner = values.setdefault(group, {})
        inner = values[group] = {} if inner is None else inner  # a group that the file leaves empty
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {group} is no group of settings.")
        values = inner
    values[last] = value


def first_fault(error: ValidationError) -> str:
    """What is wrong first, by its key."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if not key:  # about the settings as a whole, which are not repeated
        return f"{fault['msg']}."
    got = "" if fault["type"] == "missing" else f" (got {fault['input']!r})"
    return f"{key}: {fault['msg']}{got}."
