"""``targets: all`` of a comparison: every domain of the data is held out in turn."""

from __future__ import annotations

from typing import NamedTuple

from semidg.config import ExperimentConfig
from semidg.config_file import parse_config
from semidg.data.index import index_data
from semidg.data.layouts import Choices
from semidg.data.roots import find
from semidg.errors import ConfigError, DataError
from semidg.experiment.comparison_file import Comparison
from semidg.experiment.grid import assign


class Domains(NamedTuple):
    """The domains of a data set, sorted: those with a mask, which can be held out, and those without."""

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]


def resolve_targets(comparison: Comparison) -> tuple[Comparison, Domains | None]:
    """The comparison with the domains of its data in place of ``all``, and these domains; itself and None without.

    The layout is read, the images are not, unless the domains are derived from them. Raises ConfigError if the data
    have fewer than two domains with masks, or an arm has data of its own; DataError for data that cannot be read.
    """
    if "all" not in (comparison.targets, *(arm.targets for arm in comparison.arms.values())):
        return comparison, None
    for name, arm in comparison.arms.items():
        if own := [key for key in arm.set if key.startswith("data.") and not key.startswith("data.split.")]:
            raise ConfigError(f"arm {name}: sets {own[0]}; with targets all, every arm has the same data")
    assert isinstance(comparison.base, dict)
    values = parse_config(comparison.base, "base").model_dump(mode="json")
    for key, value in comparison.overrides.items():
        if key.startswith("data."):
            assign(values, key.split("."), value)
    domains = domains_of(parse_config(values, "overrides"))
    if len(domains.labelled) < 2:
        raise ConfigError(
            f"targets all: the data have {len(domains.labelled)} domain(s) with masks "
            f"({', '.join(domains.labelled) or 'none'}); to hold one out, another is needed to train on"
        )
    arms = {
        name: arm.model_copy(update={"targets": domains.labelled}) if arm.targets == "all" else arm
        for name, arm in comparison.arms.items()
    }
    targets = domains.labelled if comparison.targets == "all" else comparison.targets
    return comparison.model_copy(update={"arms": arms, "targets": targets}), domains


def domains_of(config: ExperimentConfig) -> Domains:
    """The domains of the data of a configuration; raises ConfigError without data, DataError if they are not fit."""
    data = config.data
    if data.root is None:
        raise ConfigError("data.root is not set; say where the data set is: --data.root FOLDER")
    if data.domains == "layout":
        found = find(data.root, data.layout, Choices.of(data, config.network.classes), data.more_roots)
        if found.problems:
            raise DataError(found.problems.text())
        records = tuple(found.records)
    else:
        records = index_data(data, config.network.classes).records
    labelled = {record.domain for record in records if record.labelled}
    return Domains(tuple(sorted(labelled)), tuple(sorted({record.domain for record in records} - labelled)))
