"""EPL: confidence-aware cross pseudo supervision (Yao, Hu, Li, AAAI 2022; METHOD section 3).

L = L_sup + w(t) [ L_cacps + a_con L_con ]
"""

from __future__ import annotations

from semidg.methods.two_network import TwoNetworkMethod


class EPL(TwoNetworkMethod):
    """The terms are those of ``TwoNetworkMethod``: ``supervised``, ``cacps`` and, where it is on,
    ``contrastive`` (METHOD section 5)."""
