"""EPL: confidence-aware cross pseudo supervision (Yao, Hu, Li, AAAI 2022; METHOD section 3).

L = L_sup + w(t) [ L_cacps + a_con L_con ]
"""

from __future__ import annotations

from semidg.methods.two_network import TwoNetworkMethod


class EPL(TwoNetworkMethod):
    """L_cacps = < exp(-V_1) CE(P_E^2, Y_1) + V_1 > + < exp(-V_2) CE(P_E^1, Y_2) + V_2 >,  V_k = KL(P_F^k || P_O^k).

    P_O^k and P_F^k of X and Z, cut and mixed alike; P_E^k is their mean; Y_k = argmax Q_k, of the moving average of
    network k on the plain X, then cut and mixed (``teacher: 0``: argmax P_E^k in train mode).
    Terms: ``supervised``, ``cacps`` and, where it is on, ``contrastive`` (METHOD section 5).
    Ours: moving averages, a threshold, the photometric part of Z, warm-up and ramp; L_sup is a mean over the networks.
    The published code differs from its paper: CE(P_O, Y) in place of CE(P_E, Y), scalar weights
    (``confidence: scalar``), labels from the mean of both views' logits, Dice alone in L_sup.
    """
