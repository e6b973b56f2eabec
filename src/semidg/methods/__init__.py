"""Methods by name."""

from __future__ import annotations

from typing import Any, cast

import torch

from semidg.config import ExperimentConfig
from semidg.methods.base import Method
from semidg.methods.bcp import BCP
from semidg.methods.cps import CPS
from semidg.methods.crosslight import CrossLight
from semidg.methods.dual_level import DualLevel
from semidg.methods.epl import EPL
from semidg.methods.fixmatch import FixMatch
from semidg.methods.mean_teacher import MeanTeacher
from semidg.methods.supervised import Supervised
from semidg.methods.ua_mt import UAMT
from semidg.methods.unimatch import UniMatch
from semidg.networks.factory import make_pair

#: The class of every method of the configuration, by its name.
METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "epl": EPL,
    "dual_level": DualLevel,
    "mean_teacher": MeanTeacher,
    "ua_mt": UAMT,
    "fixmatch": FixMatch,
    "unimatch": UniMatch,
    "bcp": BCP,
    "cps": CPS,
    "crosslight": CrossLight,
}


def make_method(config: ExperimentConfig) -> Method:
    """The configured method with freshly initialised networks (initialisation depends on ``config.seed``)."""
    kind = METHODS[config.method.name]
    count = getattr(config.method, "networks", kind.count)
    networks = make_pair(config.network, config.data.channels, config.seed, count)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1009 + 1000)  # for heads; the networks have seeds of their own
        return cast(Method, cast(Any, kind)(networks, config.method))  # each takes the configuration of its own name
