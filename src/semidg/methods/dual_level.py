"""Dual-level: EPL, and consistency between the views of a network and between the networks (METHOD section 4).

L = L_sup + w(t) [ L_cacps + a_view L_view + a_net (V_12 + V_21) + a_con L_con ]
"""

from __future__ import annotations

from torch import Tensor, nn

from semidg.method_config import DualLevelMethod
from semidg.methods.two_network import NetworkViews, TwoNetworkMethod
from semidg.objectives.dual_level import network_loss, view_loss


class DualLevel(TwoNetworkMethod):
    """Adds ``view`` and ``network`` to the terms of EPL; a weight of 0 leaves a term out.

    Ours: what EPL has of ours; between the views X teaches Z only (``view_direction: both``: the report).
    """

    terms = ("supervised", "cacps", "view", "network", "contrastive")

    def __init__(self, networks: nn.ModuleList, config: DualLevelMethod) -> None:
        super().__init__(networks, config)
        self.config: DualLevelMethod = config
        self.leave_out({"view": config.view_weight, "network": config.network_weight})

    def unsupervised(self, views: tuple[NetworkViews, NetworkViews]) -> dict[str, Tensor]:
        """``cacps``, ``view`` and ``network``."""
        c, named = self.config, super().unsupervised(views)
        if c.view_weight:
            terms = [
                view_loss(v.log_weak, v.log_strong, v.label_weak, v.label_strong, c.view_direction, c.view_dice, v.keep)
                for v in views
            ]
            named["view"] = c.view_weight * (terms[0] + terms[1]) / 2
        if c.network_weight:
            a, b = views
            named["network"] = c.network_weight * network_loss(
                (a.log_weak, b.log_weak), (a.log_strong, b.log_strong), (a.log_average, b.log_average), c.between
            )
        return named
