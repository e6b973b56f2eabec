"""Writes docs/reference/configuration.md from the models of semidg.config: ``python docs/make_reference.py``."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from semidg.config import ExperimentConfig
from semidg.config_file import load_config, presets
from semidg.method_config import METHOD_CONFIGS

PAGE = Path(__file__).parent / "reference" / "configuration.md"

HEAD = """<!-- Made by docs/make_reference.py from the models of src/semidg/*config.py: edit there. -->

# Configuration

A configuration is a tree of keys. It comes from a preset (`semidg train busi-lite ...`) or a YAML file
(`semidg train --config FILE ...`); a key that neither sets has its default. On the command line every key is an option,
with `-` for `_`: `trainer.max_steps` is `--trainer.max-steps 1000`, `network.atrous_rates` is
`--network.atrous-rates 2 4 6`, `data.include_normal` is `--data.include-normal` or `--data.no-include-normal`. An
unknown key is refused, with the nearest known one.

```
semidg train busi-lite --print-config
```

prints the complete configuration and trains nothing. What a run was trained with is `config.yaml` in its folder; the
same configuration and seed give the same run.

The keys of `method` depend on `method.name`. Naming another method than that of the preset or file replaces the whole
section by the defaults of that method; options on the same command line are applied to those.
"""


def sections() -> Iterator[tuple[str, str, type[BaseModel]]]:
    """(prefix with a final dot, heading, model) of every section, in the order of the page."""
    yield "", "Top level", ExperimentConfig
    for name, info in ExperimentConfig.model_fields.items():
        if name == "method":
            for chosen, method in METHOD_CONFIGS.items():
                yield from _with_children("method.", f"method, with name = {chosen}", method)
        elif _is_model(info.annotation):
            yield from _with_children(f"{name}.", name, info.annotation)


def _with_children(prefix: str, heading: str, model: Any) -> Iterator[tuple[str, str, type[BaseModel]]]:
    yield prefix, heading, model
    for name, info in model.model_fields.items():
        if _is_model(info.annotation):
            yield from _with_children(f"{prefix}{name}.", f"{prefix}{name}", info.annotation)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def type_text(annotation: Any, info: FieldInfo | None = None) -> str:
    """A type and its bounds, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        text = ", ".join(f"`{value}`" for value in arguments)
    elif origin in (Union, types.UnionType):
        text = " or ".join(type_text(a) for a in arguments if a is not type(None))
        if type(None) in arguments:
            text += ", or none"
    elif origin is tuple and arguments[-1] is Ellipsis:
        text = f"{'any of' if get_origin(arguments[0]) is Literal else 'list of'} {type_text(arguments[0])}"
    elif origin is tuple:
        text = f"{len(arguments)} x {type_text(arguments[0])}"
    elif origin is Annotated:
        return type_text(arguments[0], arguments[1])
    else:
        text = {bool: "yes or no", Path: "path"}.get(annotation, annotation.__name__)
    return text + (_bounds(info) if info else "")


def _bounds(info: FieldInfo) -> str:
    bound: dict[str, Any] = {}
    for item in info.metadata:
        bound |= {name: getattr(item, name) for name in ("ge", "gt", "le", "lt") if hasattr(item, name)}
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    if {"ge", "le"} <= set(bound):
        return f", {bound['ge']:g} to {bound['le']:g}"
    parts = [f"{words[name]} {bound[name]:g}" for name in ("ge", "gt", "le", "lt") if name in bound]
    return ", " + " and ".join(parts) if parts else ""


def value_text(value: Any) -> str:
    """A value as it stands in YAML."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple | list):
        return "`[" + ", ".join(v if isinstance(v, str) else f"{v:g}" for v in value) + "]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def meaning(prefix: str, name: str, info: FieldInfo) -> str:
    """The docstring of a key; raises ValueError if there is nothing to say about it."""
    text = info.description
    if not text:
        raise ValueError(f"{prefix}{name} has no docstring in the configuration")
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def rows(prefix: str, model: type[BaseModel]) -> list[str]:
    """Table rows of the keys of one section, sections inside it left out."""
    lines = []
    for name, info in model.model_fields.items():
        if _is_model(info.annotation) or prefix + name == "method":
            continue
        cells = (f"`{prefix}{name}`", type_text(info.annotation, info), value_text(info.default))
        lines.append(f"| {' | '.join(cells)} | {meaning(prefix, name, info)} |")
    return lines


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of a nested mapping."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return result


def preset_table() -> list[str]:
    """What each preset sets, where at least one differs from the default."""
    names = presets()
    default = flat(ExperimentConfig().model_dump(mode="json"))
    values = {name: flat(load_config(name).model_dump(mode="json")) for name in names}
    keys = list(dict.fromkeys(key for name in names for key in values[name]))
    lines = [f"| key | default | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for key in keys:
        if any(values[name].get(key) != default.get(key) for name in names):
            cells = [value_text(values[name][key]) if key in values[name] else "" for name in names]
            lines.append(f"| `{key}` | {value_text(default.get(key))} | {' | '.join(cells)} |")
    return lines


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## Presets\n\nKeys in which a preset differs from the defaults.\n", *preset_table(), ""]
    seen: dict[tuple[str, type[BaseModel]], bool] = {}
    for prefix, heading, model in sections():
        if (prefix, model) in seen:
            continue
        seen[prefix, model] = True
        about = " ".join((model.__doc__ or "").split()).replace("``", "`")
        parts += [f"## {heading}", "", *([about, ""] if about else [])]
        table = rows(prefix, model)
        if table:
            parts += ["| key | type | default | meaning |", "|---|---|---|---|", *table, ""]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
