"""Options of the verbs: every key of the configuration is an option, typed, with a hint on a typo."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import BaseModel, create_model

from semidg.config import ExperimentConfig
from semidg.config_file import load_config, parse_config


def value_of(arguments: Sequence[str], option: str) -> str | None:
    """The last value given for ``--option VALUE`` or ``--option=VALUE``."""
    found = None
    for here, following in pairwise([*arguments, ""]):
        if here == f"--{option}":
            found = following
        elif here.startswith(f"--{option}="):
            found = here.split("=", 1)[1]
    return found


def base_config(source: str | Path, method: str | None) -> ExperimentConfig:
    """A preset or file; another method than its own comes with the defaults of that method."""
    config = load_config(source)
    if method is not None and method != config.method.name:
        values = config.model_dump(mode="json") | {"method": {"name": method}}
        config = parse_config(values, "--method.name")
    return config


def parse_with_config(
    verb: str, options: type[Any], config: ExperimentConfig, arguments: Sequence[str], description: str
) -> tuple[Any, ExperimentConfig]:
    """Parse a verb's own ``options`` (a dataclass) together with every key of ``config``.

    Raises ConfigError, a line for each wrong value.
    """
    default = _unchecked(config)
    concrete = type(default)
    both = dataclasses.make_dataclass(
        "Options",
        [
            ("options", Annotated[options, tyro.conf.arg(name="")]),
            ("config", Annotated[concrete, tyro.conf.arg(name="")], default),
        ],
    )
    parsed: Any = tyro.cli(both, args=list(arguments), prog=f"semidg {verb}", description=description)
    return parsed.options, parse_config(parsed.config.model_dump(mode="json"), "options")


def _unchecked(model: BaseModel) -> BaseModel:
    """``model`` as one of a class with the same fields that takes any value: tyro would show what pydantic says of a
    wrong one in words of its own, so the values are checked once they are all there."""
    values = {name: getattr(model, name) for name in type(model).model_fields}
    values = {name: _unchecked(value) if isinstance(value, BaseModel) else value for name, value in values.items()}
    inner: Any = {name: (type(value), value) for name, value in values.items() if isinstance(value, BaseModel)}
    made = create_model(type(model).__name__, __base__=type(model), **inner)

    def keep(self: BaseModel, **given: Any) -> None:
        plain = made.model_construct(**given)
        for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
            object.__setattr__(self, name, getattr(plain, name))

    keep.__doc__ = type(model).__doc__  # which the help shows
    made.__init__ = keep  # type: ignore[assignment]
    return made.model_construct(**values)


def parse(verb: str, options: type[Any], arguments: Sequence[str], description: str) -> Any:
    """Parse the options of a verb without configuration keys."""
    return tyro.cli(options, args=list(arguments), prog=f"semidg {verb}", description=description)
