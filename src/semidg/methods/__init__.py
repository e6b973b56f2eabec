"""Methods by name."""

from __future__ import annotations

from semidg.config import DualLevelMethod, EPLMethod, ExperimentConfig, SupervisedMethod
from semidg.methods.base import Method
from semidg.methods.dual_level import DualLevel
from semidg.methods.epl import EPL
from semidg.methods.supervised import Supervised
from semidg.networks.factory import make_pair

#: Every method of the configuration, by its name.
METHODS: dict[str, type[Method]] = {"supervised": Supervised, "epl": EPL, "dual_level": DualLevel}


def make_method(config: ExperimentConfig) -> Method:
    """The configured method with freshly initialised networks (initialisation depends on ``config.seed``)."""
    method = config.method
    count = method.networks if isinstance(method, SupervisedMethod) else 2
    networks = make_pair(config.network, config.data.channels, config.seed, count)
    if isinstance(method, SupervisedMethod):
        return Supervised(networks, method)
    if isinstance(method, DualLevelMethod):
        return DualLevel(networks, method)
    assert isinstance(method, EPLMethod)
    return EPL(networks, method)
