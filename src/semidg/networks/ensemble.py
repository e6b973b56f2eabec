"""The networks that predict, together: the mean of their softmaxes, over views of the image where asked."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semidg.config import Augmentation

#: Test-time augmentations, the quickest first: of each view its size, as a part of the image's, and whether it is the
#: left-right mirror image.
VIEWS: dict[Augmentation, tuple[tuple[float, bool], ...]] = {
    "none": ((1.0, False),),
    "mirror": ((1.0, False), (1.0, True)),
    "scales": ((1.0, False), (1.0, True), (1.25, False), (1.25, True)),
}

#: Sizes of views are multiples of it: an encoder halves an image up to five times.
_STEP = 32


class Ensemble(nn.Module):
    """One or more networks of one architecture, and the test-time augmentation they predict with."""

    def __init__(self, networks: Iterable[nn.Module], augmentation: Augmentation = "none") -> None:
        if augmentation not in VIEWS:
            raise ValueError(f"{augmentation!r}: no test-time augmentation; there are {', '.join(VIEWS)}")
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.augmentation: Augmentation = augmentation

    def predict_each(self, images: Tensor) -> Tensor:
        """Class probabilities of each network, (N, B, K, H, W), the mean over the views of ``augmentation``; images
        (B, C, H, W) in [0, 1].

        The networks are in eval mode meanwhile and return to the mode they had.
        """
        trained = [network for network in self.networks if network.training]
        try:
            for network in trained:
                network.eval()
            said = [self._view(images, scale, mirrored) for scale, mirrored in VIEWS[self.augmentation]]
        finally:
            for network in trained:
                network.train()
        return said[0] if len(said) == 1 else torch.stack(said).mean(0)

    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities (B, K, H, W), the mean of the networks."""
        return self.predict_each(images).mean(0)

    def _view(self, images: Tensor, scale: float, mirrored: bool) -> Tensor:
        """What each network says of one view, turned and resized back to the image: (N, B, K, H, W)."""
        own = images.shape[-2:]
        side = own if scale == 1 else tuple(math.ceil(scale * n / _STEP) * _STEP for n in own)
        view = images if side == own else F.interpolate(images, size=side, mode="bilinear", align_corners=False)
        view = (view.flip(-1) if mirrored else view).contiguous(memory_format=torch.channels_last)
        said = torch.stack([F.softmax(network(view).logits.float(), 1) for network in self.networks])
        said = said.flip(-1) if mirrored else said
        if side == own:
            return said
        back = F.interpolate(said.flatten(0, 1), size=own, mode="bilinear", align_corners=False)
        return back.reshape(said.shape[:3] + own)
