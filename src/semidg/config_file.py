"""Configurations as presets and YAML files, in and out; every error names the file and the key."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from semidg.config import ExperimentConfig
from semidg.errors import ConfigError
from semidg.method_config import METHOD_CONFIGS


def presets() -> list[str]:
    """Names of the built-in configurations."""
    return sorted(p.name[:-5] for p in resources.files("semidg.configs").iterdir() if p.name.endswith(".yaml"))


def load_config(source: str | Path) -> ExperimentConfig:
    """Read a preset by name or a YAML file by path; raises ConfigError that names the file and the key."""
    if str(source) in presets():
        text, where = (
            resources.files("semidg.configs").joinpath(f"{source}.yaml").read_text("utf-8"),
            f"preset {source}",
        )
    else:
        path = Path(source)
        if not path.is_file():
            near = difflib.get_close_matches(str(source), presets(), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{source}: neither a preset ({', '.join(presets())}) nor a YAML file{hint}")
        try:
            text, where = path.read_text("utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as text ({error})") from error
    return parse_config(parse_mapping(text, where), where)


class _OnceLoader(yaml.SafeLoader):
    """YAML of plain values in which a key stands once: of two the first one would be lost in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} stands twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node


def parse_mapping(text: str, where: str) -> dict[str, Any]:
    """The mapping that a YAML text is, empty for an empty one; raises ConfigError that names ``where``."""
    try:
        values = yaml.load(text, _OnceLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: must be a mapping of keys to values, not a {type(values).__name__}")
    return values


def parse_config(values: dict[str, Any], where: str) -> ExperimentConfig:
    """Validate a nested mapping; ``where`` names its origin in the error."""
    try:
        return ExperimentConfig.model_validate(values)
    except ValidationError as error:
        raise config_error(error, where) from error


def config_error(error: ValidationError, where: str) -> ConfigError:
    """A line for each wrong key or value."""
    return ConfigError("\n".join(f"{where}: {_explain(item)}" for item in error.errors()))


def dump_config(config: ExperimentConfig) -> str:
    """The configuration as YAML; ``load_config`` reads it back unchanged."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _explain(item: Any) -> str:
    path = [str(part) for part in item["loc"]]
    if item["type"] == "union_tag_invalid":
        name = item["ctx"]["tag"]
        near = difflib.get_close_matches(name, METHOD_CONFIGS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; the methods are {', '.join(METHOD_CONFIGS)}"
        return f"method.name {name!r} is unknown{hint}"
    key = ".".join(p for p in path if p not in METHOD_CONFIGS)  # pydantic adds the member of the union
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known_keys(), 1, cutoff=0.3)
        return f"unknown key {key!r}" + (f"; the nearest known key is {near[0]!r}" if near else "")
    message = str(item["msg"]).removeprefix("Value error, ")
    got = "" if isinstance(item["input"], dict | BaseModel) else f" (got {item['input']!r})"
    return f"{key}: {message}{got}" if key else message


def known_keys(model: type[BaseModel] = ExperimentConfig, prefix: str = "") -> list[str]:
    """All dotted keys of the configuration."""
    keys: list[str] = []
    for name, info in model.model_fields.items():
        if name == "method":
            for sub in METHOD_CONFIGS.values():
                keys += known_keys(sub, f"{prefix}method.")
        elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys += known_keys(info.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return list(dict.fromkeys(keys))
