"""Test-time augmentation against views made one by one, and what of it holds for any network."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from semidg.config import Augmentation
from semidg.networks.ensemble import VIEWS, Ensemble
from semidg.networks.factory import NetworkOutput


class Local(nn.Module):
    """Logits of three classes from a pixel and its right neighbour; what it was given is kept."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, (1, 2), padding="same")
        with torch.no_grad():
            self.conv.weight.normal_(generator=torch.Generator().manual_seed(seed)).mul_(3)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> NetworkOutput:
        self.seen.append(images)
        return NetworkOutput(self.conv(images), images)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(0))
    return np.asarray(powers / powers.sum(0))


def resized(values: np.ndarray, side: int) -> np.ndarray:
    """Bilinear between the centres of pixels, the border continued, one plane at a time."""
    at = (np.arange(side) + 0.5) * len(values[0]) / side - 0.5
    return np.stack(
        [ndimage.map_coordinates(v, np.meshgrid(at, at, indexing="ij"), order=1, mode="nearest") for v in values]
    )


def slowly(network: Local, image: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """The mean over the views, by loops over NumPy arrays: (K, S, S)."""
    weight, bias = network.conv.weight.detach().double().numpy(), network.conv.bias
    assert bias is not None
    found = []
    for scale in {"none": (1,), "mirror": (1,), "scales": (1, 1.25)}[augmentation]:
        for mirrored in (False,) if augmentation == "none" else (False, True):
            side = int(32 * np.ceil(scale * image.shape[-1] / 32))
            view = image if side == image.shape[-1] else resized(image[None], side)[0]
            view = view[:, ::-1] if mirrored else view
            right = np.pad(view, ((0, 0), (0, 1)))[:, 1:]
            logits = np.stack(
                [w[0, 0, 0] * view + w[0, 0, 1] * right + float(b.detach()) for w, b in zip(weight, bias, strict=True)]
            )
            said = softmax(logits)
            said = said[:, :, ::-1] if mirrored else said
            found.append(said if side == image.shape[-1] else resized(said, image.shape[-1]))
    return np.asarray(np.mean(found, 0))


@pytest.mark.parametrize("augmentation", VIEWS)
@pytest.mark.parametrize("side", [64, 96])
def test_it_is_the_mean_over_views_that_are_turned_and_resized_back(augmentation: Augmentation, side: int) -> None:
    networks = [Local(0), Local(1)]
    images = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        each = Ensemble(networks, augmentation).predict_each(images)
    assert each.shape == (2, 2, 3, side, side)
    for network, of in zip(networks, each, strict=True):
        for image, found in zip(images, of, strict=True):
            expected = slowly(network, image[0].double().numpy(), augmentation)
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("augmentation", VIEWS)
def test_probabilities_stay_probabilities_and_mirrored_images_get_mirrored_ones(augmentation: Augmentation) -> None:
    ensemble = Ensemble([Local()], augmentation)
    images = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found, mirrored = (ensemble.predict(x) for x in (images, images.flip(-1)))
    torch.testing.assert_close(found.sum(1), torch.ones(1, 64, 64))
    same = torch.allclose(found, mirrored.flip(-1), atol=1e-6)
    assert same == (augmentation != "none")


def test_sizes_are_those_that_encoders_can_halve() -> None:
    network = Local()
    for side, larger in ((128, 160), (96, 128), (224, 288), (100, 128), (16, 32)):
        network.seen.clear()
        with torch.no_grad():
            Ensemble([network], "scales").predict(torch.rand(1, 1, side, side))
        assert [x.shape[-1] for x in network.seen] == [side, side, larger, larger]


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(ValueError, match="there are none, mirror, scales"):
        Ensemble([Local()], cast(Augmentation, "auto"))
