"""The file of a comparison: arms, labelled fractions, seeds and held-out domains around one configuration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from semidg.config_file import dump_config, load_config, parse_mapping, presets
from semidg.errors import ConfigError
from semidg.method_config import Model

Labelled = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)]
Seeds = Annotated[tuple[int, ...], Field(min_length=1)]
Targets = Annotated[tuple[str | None, ...], Field(min_length=1)] | Literal["all"]

_AXES = ("labelled", "seeds", "targets")


class _Axes(Model):
    @model_validator(mode="after")
    def _once(self) -> _Axes:
        for name in _AXES:
            values = getattr(self, name) or ()
            if values != "all" and len(set(values)) < len(values):
                raise ValueError(f"{name} names a value twice")
        return self


class Arm(_Axes):
    """One arm: what it sets, and where it runs if not on the whole grid.

    A key with a dot may stand beside the others in place of within ``set``.
    """

    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of the configuration -> values."""
    labelled: Labelled | None = None
    """In place of the labelled fractions of the grid."""
    seeds: Seeds | None = None
    """In place of the seeds of the grid."""
    targets: Targets | None = None
    """In place of the held-out domains of the grid."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, values: Any) -> Any:
        if values is None:
            return {}
        if not isinstance(values, dict):
            return values
        dotted = {key: value for key, value in values.items() if "." in str(key)}
        if not dotted:
            return values
        named = values.get("set") or {}
        if both := sorted(named.keys() & dotted.keys()):
            raise ValueError(f"{both[0]} stands in set and beside it")
        return {key: value for key, value in values.items() if key not in dotted} | {"set": named | dotted}


class Comparison(_Axes):
    """A grid of runs: every arm at every labelled fraction, seed and held-out domain."""

    name: str = "comparison"
    """Title of the tables."""
    base: str | dict[str, Any]
    """What all runs start from: a preset, a YAML file (relative to this one), or a configuration in place."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys -> values, for every run."""
    arms: Annotated[dict[str, Arm], Field(min_length=1)]
    """Name -> what this arm sets. One named like a method is that method, unless it sets method.name."""
    labelled: Labelled | None = None
    """Labelled fractions; default: that of ``base``."""
    seeds: Seeds | None = None
    """Seeds; default: that of ``base``."""
    targets: Targets | None = None
    """Domains held out, each in runs of its own, null for none; ``all``: each domain of the data that has masks.
    Default: as in ``base``."""
    baseline: str | None = None
    """The arm that the others are compared with; default: the first."""

    @model_validator(mode="after")
    def _arms(self) -> Comparison:
        if self.baseline is not None and self.baseline not in self.arms:
            raise ValueError(f"baseline {self.baseline!r} is no arm; the arms are {', '.join(self.arms)}")
        if blank := [name for name in self.arms if not name.strip() or name != " ".join(name.split())]:
            raise ValueError(f"arm {blank[0]!r}: a name needs a letter, and single spaces only between its words")
        return self

    @property
    def against(self) -> str:
        """The arm that the others are compared with."""
        return self.baseline or next(iter(self.arms))


def is_comparison(source: str) -> bool:
    """Whether ``source`` is a file with arms, and not a preset or the configuration of one experiment."""
    return source not in presets() and Path(source).is_file() and "arms" in _read(Path(source))


def load_comparison(path: Path) -> Comparison:
    """Read a comparison; raises ConfigError that names the file and the key."""
    values = dict(_read(path))
    base = values.get("base")
    if isinstance(base, str) and base not in presets():
        values["base"] = str(path.parent / base)
        if not Path(values["base"]).is_file():
            near = difflib.get_close_matches(base, presets(), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{path}: base: {base}: neither a preset ({', '.join(presets())}) nor a file beside this one{hint}"
            )
    return parse_comparison(values, str(path))


def parse_comparison(values: Mapping[str, Any], where: str) -> Comparison:
    """Validate a nested mapping, read its base, and put that in place of its name."""
    try:
        comparison = Comparison.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {_explain(item)}" for item in error.errors())) from error
    if isinstance(comparison.base, dict):
        return comparison
    try:
        base = yaml.safe_load(dump_config(load_config(comparison.base)))
    except ConfigError as error:
        raise ConfigError("\n".join(f"{where}: base: {line}" for line in str(error).splitlines())) from error
    return comparison.model_copy(update={"base": base})


def dump_comparison(comparison: Comparison) -> str:
    """The comparison as YAML, its base in place; ``load_comparison`` reads it back unchanged."""
    values = comparison.model_dump(mode="json", exclude_none=False)
    values["arms"] = {
        name: {key: value for key, value in arm.items() if value not in (None, {})}
        for name, arm in values["arms"].items()
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from error
    return parse_mapping(text, str(path))


def _explain(item: Any) -> str:
    path = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        known = [*(Arm if path[0] == "arms" else Comparison).model_fields]
        near = difflib.get_close_matches(path[-1], known, 1, cutoff=0.4)
        hint = f"; the nearest known key is {near[0]!r}" if near else f"; the keys are {', '.join(known)}"
        return f"unknown key {'.'.join(path)!r}{hint}"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"{'.'.join(path)} is missing"
    return f"{'.'.join(path)}: {message}" if path else message
