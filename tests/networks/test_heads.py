"""Projection and edge heads, and labels at the resolution of the features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from semidg.config import NetworkConfig
from semidg.networks.factory import make_network
from semidg.networks.heads import EdgeHead, ProjectionHead, feature_channels, labels_at_features
from semidg.types import IGNORE_INDEX

SMALL = NetworkConfig(encoder="tu-test_efficientnet", weights="none", atrous_rates=(1, 2, 3))


@pytest.mark.parametrize("architecture", ["deeplabv3plus", "unet", "fpn"])
def test_heads_fit_the_features_of_every_decoder(architecture: str) -> None:
    network = make_network(SMALL.model_copy(update={"architecture": architecture}), 1, 0).eval()
    features = network(torch.rand(2, 1, 50, 70)).features
    channels = feature_channels(network)
    assert features.shape[1] == channels
    assert ProjectionHead(channels)(features[:, :, 0, 0]).shape == (2, 128)
    assert EdgeHead(channels)(features, 50, 70).shape == (2, 50, 70)
    assert labels_at_features(torch.zeros(2, 50, 70, dtype=torch.long), features).shape == (2, *features.shape[-2:])


def test_projection_is_two_1x1_convolutions() -> None:
    head, features = ProjectionHead(6), torch.randn(2, 6, 4, 5)
    first, second = head.layers[0], head.layers[2]
    hidden = F.relu(F.conv2d(features, first.weight[:, :, None, None], first.bias))
    expected = F.conv2d(hidden, second.weight[:, :, None, None], second.bias)
    expected = expected / expected.norm(dim=1, keepdim=True)
    ours = head(features.movedim(1, -1).flatten(0, 2))
    torch.testing.assert_close(ours, expected.movedim(1, -1).flatten(0, 2))


def test_projection_has_unit_length_in_32_bit_under_autocast_and_takes_no_pixel() -> None:
    head = ProjectionHead(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = head(torch.randn(3, 6))
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    empty = head(torch.zeros(0, 6))
    assert empty.shape == (0, 128)
    empty.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in head.parameters())


def test_edge_head_learns_where_the_edge_is() -> None:
    """An edge drawn into the features comes out at its place in the image, padding cropped."""
    features = torch.zeros(1, 1, 16, 24)
    features[..., 10] = 1.0  # columns 40 to 43 of an image padded from 50 x 70 to 64 x 96
    head = EdgeHead(1)
    with torch.no_grad():
        for p in head.parameters():
            p.zero_()
        head.layers[0].weight[:, :, 1, 1] = 1.0
        head.layers[2].weight.fill_(1.0)
    logits = head(features, 50, 70)
    assert set(logits[0, 0].topk(2).indices.tolist()) == {41, 42}


@pytest.mark.parametrize(("size", "small"), [((50, 70), (16, 24)), ((64, 96), (16, 24)), ((33, 31), (64, 32))])
def test_labels_are_those_of_the_centre_pixel_and_unknown_in_the_padding(
    size: tuple[int, int], small: tuple[int, int]
) -> None:
    labels = torch.randint(0, 3, (2, *size), generator=torch.Generator().manual_seed(0))
    result = labels_at_features(labels, torch.zeros(5, 7, *small))
    steps = [-(-n // 32) * 32 / s for n, s in zip(size, small, strict=True)]
    for i in range(small[0]):
        for j in range(small[1]):
            y, x = int((i + 0.5) * steps[0]), int((j + 0.5) * steps[1])
            inside = y < size[0] and x < size[1]
            expected = labels[:, y, x] if inside else torch.full((2,), IGNORE_INDEX)
            assert torch.equal(result[:, i, j], expected)
