"""Networks that cost nothing, in place of those of ``semidg.networks.factory``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semidg.config import NetworkConfig
from semidg.networks.factory import SegmentationNetwork


class Model(nn.Module):
    """The parts of a segmentation model in four convolutions: features of stride 4, dropout, BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.segmentation_head = nn.Sequential(nn.Conv2d(6, 2, 1), nn.Upsample(scale_factor=4, mode="bilinear"))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 5, 4, 2), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, self.layers(x)]


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.Dropout2d(0.3))

    def forward(self, maps: list[Tensor]) -> Tensor:
        features: Tensor = self.layers(maps[-1])
        return features


def small_pair(config: NetworkConfig, channels: int, seed: int, count: int) -> nn.ModuleList:
    """Networks that cost nothing, as ``make_pair`` makes them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.ModuleList(SegmentationNetwork(Model(), channels) for _ in range(count))
