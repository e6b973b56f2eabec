"""The networks that predict, together: the mean of their softmaxes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Ensemble(nn.Module):
    """One or more networks of one architecture."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def predict_each(self, images: Tensor) -> Tensor:
        """Class probabilities of each network, (N, B, K, H, W); images (B, C, H, W) in [0, 1].

        The networks are in eval mode meanwhile and return to the mode they had.
        """
        trained = [network for network in self.networks if network.training]
        try:
            for network in trained:
                network.eval()
            return torch.stack([F.softmax(network(images).logits.float(), 1) for network in self.networks])
        finally:
            for network in trained:
                network.train()

    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities (B, K, H, W), the mean of the networks."""
        return self.predict_each(images).mean(0)
