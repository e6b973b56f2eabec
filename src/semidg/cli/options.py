"""Options of the verbs: every key of the configuration is an option, typed, with a hint on a typo."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import ValidationError, create_model

from semidg.config import ExperimentConfig, config_error, load_config, parse_config


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
    """Parse a verb's own ``options`` (a dataclass) together with every key of ``config``."""
    concrete = create_model("ExperimentConfig", __base__=ExperimentConfig, method=(type(config.method), config.method))
    default = concrete.model_construct(**{name: getattr(config, name) for name in ExperimentConfig.model_fields})
    both = dataclasses.make_dataclass(
        "Options",
        [
            ("options", Annotated[options, tyro.conf.arg(name="")]),
            ("config", Annotated[concrete, tyro.conf.arg(name="")], default),
        ],
    )
    try:
        parsed: Any = tyro.cli(both, args=list(arguments), prog=f"semidg {verb}", description=description)
    except ValidationError as error:
        raise config_error(error, "options") from error
    return parsed.options, parse_config(parsed.config.model_dump(mode="json"), "options")


def parse(verb: str, options: type[Any], arguments: Sequence[str], description: str) -> Any:
    """Parse the options of a verb without configuration keys."""
    return tyro.cli(options, args=list(arguments), prog=f"semidg {verb}", description=description)
