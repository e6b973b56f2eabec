"""From a comparison to its runs: one complete configuration and one folder name each."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semidg.config import ExperimentConfig
from semidg.config_file import known_keys, parse_config
from semidg.errors import ConfigError
from semidg.experiment.comparison_file import Arm, Comparison
from semidg.method_config import METHOD_CONFIGS

#: Keys that the grid sets, and what to write in their place.
OF_THE_GRID = {"labelled": "labelled", "seed": "seeds", "data.split.target": "targets"}

_LONGEST = 60  # letters of an arm's name in that of a folder


@dataclass(frozen=True)
class Cell:
    """A run of the grid."""

    arm: str
    labelled: float
    target: str | None
    seed: int
    config: ExperimentConfig
    name: str
    """Of its folder: letters that every file system takes."""


def expand(comparison: Comparison) -> list[Cell]:
    """All runs, seeds outermost, then targets and fractions: the table is complete over the arms early.

    Raises ConfigError with a line for each key or value that an arm cannot have, and for targets that are still
    ``all`` (``targets.resolve_targets``).
    """
    assert isinstance(comparison.base, dict)
    if "all" in (comparison.targets, *(arm.targets for arm in comparison.arms.values())):
        raise ConfigError("targets all: the domains are not read yet")
    base = parse_config(comparison.base, "base")
    cells, problems = [], []
    axes: tuple[list[Any], ...] = ([], [], [])
    for name, arm in comparison.arms.items():
        try:
            values = _values(base, comparison.overrides, name, arm)
        except ConfigError as error:
            problems += str(error).splitlines()
            continue
        of_arm = (
            arm.seeds or comparison.seeds or (base.seed,),
            arm.targets or comparison.targets or (base.data.split.target,),
            arm.labelled or comparison.labelled or (base.labelled,),
        )
        for whole, part in zip(axes, of_arm, strict=True):
            whole += [value for value in part if value not in whole]
        for seed, target, labelled in itertools.product(*of_arm):
            split = values["data"]["split"] | {"target": target}
            of_cell = values | {"seed": seed, "labelled": labelled, "data": values["data"] | {"split": split}}
            try:
                config = parse_config(of_cell, f"arm {name}")
            except ConfigError as error:
                problems += str(error).splitlines()
                continue
            cells.append(Cell(name, labelled, target, seed, config, folder_name(name, labelled, target, seed)))
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    _refuse_shared_folders(cells)
    arms = [*comparison.arms]
    seeds, targets, fractions = axes
    return sorted(
        cells,
        key=lambda c: (seeds.index(c.seed), targets.index(c.target), fractions.index(c.labelled), arms.index(c.arm)),
    )


def folder_name(arm: str, labelled: float, target: str | None, seed: int) -> str:
    """``ARM_labelled-0.25_target-NAME_seed-0`` of ASCII letters, digits and ``. _ - + =``."""
    held_out = [] if target is None else [f"target-{_safe(target)}"]
    return "_".join([_safe(arm), f"labelled-{labelled:g}", *held_out, f"seed-{seed}"])


def differing_keys(one: ExperimentConfig, other: ExperimentConfig) -> list[str]:
    """Dotted keys in which two configurations differ."""
    a, b = (flat(config.model_dump(mode="json")) for config in (one, other))
    return [key for key in dict.fromkeys([*a, *b]) if a.get(key, ...) != b.get(key, ...)]


def _safe(text: str) -> str:
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._+=-]+", "-", ascii_text).strip("-.")
    lost = sum(c.isalnum() for c in text) != sum(c.isalnum() for c in safe)
    if lost or not safe or len(safe) > _LONGEST:  # letters are gone: the name alone no longer tells arms apart
        safe = "-".join([*([safe[:_LONGEST]] if safe else []), hashlib.sha256(text.encode()).hexdigest()[:8]])
    return safe


def _refuse_shared_folders(cells: Sequence[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.name.casefold(), cell)  # some file systems do not tell case apart
        if other is not cell:
            pair = f"arms {other.arm!r} and {cell.arm!r}"
            if other.arm == cell.arm:
                pair = f"two cells of the arm {cell.arm!r} (target {other.target!r} and {cell.target!r})"
            raise ConfigError(f"{pair} would share the run folder {cell.name}; give one another name")


def _values(base: ExperimentConfig, overrides: Mapping[str, Any], name: str, arm: Arm) -> dict[str, Any]:
    """The values of an arm, but for what the grid sets; another method than the base's comes with its defaults."""
    values = base.model_dump(mode="json")
    own = name if name in METHOD_CONFIGS else None
    method = arm.set.get("method.name") or own or overrides.get("method.name") or base.method.name
    if method not in METHOD_CONFIGS:
        near = difflib.get_close_matches(str(method), METHOD_CONFIGS, 1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"the methods are {', '.join(METHOD_CONFIGS)}"
        raise ConfigError(f"arm {name}: unknown method {method!r}; {hint}")
    if method != base.method.name:
        values["method"] = {"name": method}
    problems = []
    for where, given in (("overrides", overrides), (f"arm {name}", arm.set)):
        for key, value in given.items():
            if problem := _problem(key, method):
                problems.append(f"{where}: {problem}" + (f" (arm {name})" if where == "overrides" else ""))
            elif key != "method.name":
                assign(values, key.split("."), value)
    if problems:
        raise ConfigError("\n".join(problems))
    return values


def _problem(key: str, method: str) -> str | None:
    if key in OF_THE_GRID:
        return f"{key!r} belongs to the grid: set {OF_THE_GRID[key]} of the comparison, or of the arm"
    if key not in known_keys():
        near = difflib.get_close_matches(key, known_keys(), 1, cutoff=0.3)
        return f"unknown key {key!r}" + (f"; the nearest known key is {near[0]!r}" if near else "")
    if key.startswith("method.") and key not in known_keys(METHOD_CONFIGS[method], "method."):
        return f"the method {method} has no key {key!r}; set it only in the arms whose method has it"
    return None


def assign(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the value of a dotted key, given as its parts, in nested mappings."""
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
