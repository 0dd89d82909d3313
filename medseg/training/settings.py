"""Settings as files: a YAML file or a preset's name, single settings put over it, the first fault in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

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


def first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong first, by its key: an unknown one before others, which may be missing because it is misspelt."""
    fault = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return _unknown(key, _keys(model))
    if not key:  # about the settings as a whole, which are not repeated
        return f"{fault['msg']}."
    got = "" if fault["type"] == "missing" else f" (got {fault['input']!r})"
    return f"{key}: {fault['msg']}{got}."


def _unknown(key: str, known: Sequence[str]) -> str:
    group, _, name = key.rpartition(".")
    beside = [each for each in known if each.rpartition(".")[0] == group]
    for some in (beside, known):
        names = {each.rpartition(".")[2]: each for each in some}
        if alike := get_close_matches(name, names, n=1):
            return f"unknown key {key}; did you mean {names[alike[0]]}?"
    return f"unknown key {key}; there are: {', '.join(beside)}."


def _keys(model: type[BaseModel], group: str = "") -> list[str]:
    """Every key, those of a group with its name before them: `loop`, `loop.seed`."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(group + name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += _keys(kind, f"{group}{name}.")
    return keys
