"""BatchNorm statistics of the images of another hospital, without their masks.

Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation" (NeurIPS 2020): the
statistics of training and those of the new images, mixed; here the new ones never count for more than half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

#: The statistics of training count for as much as those of so many new images (N in the paper) ...
PRIOR = 8

#: ... which count for this part at most.
MOST = 0.5


def share_of(images: int) -> float:
    """s = min(1/2, n / (n + N)): what the statistics of n new images count for."""
    return min(MOST, images / (images + PRIOR))


@torch.no_grad()
def adapt_batch_norms(network: nn.Module, batches: Sequence[Tensor], share: float) -> None:
    """Mix the statistics of new images into every BatchNorm of a network, in place.

    m <- (1 - s) m + s m', v <- (1 - s) v + s v', with m' and v' the mean over the new images of the mean and variance
    of a layer's input, (C,), batch by batch, the layers before it normalised by their batch. A layer with a single
    value a channel, which has no variance, keeps its own. Weights stay as they are. batches: (B, C, H, W) in [0, 1].
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    found: dict[nn.BatchNorm2d, list[tuple[int, Tensor, Tensor]]] = {norm: [] for norm in norms}
    before = [(norm, norm.training, norm.momentum, norm.num_batches_tracked) for norm in norms]

    def look(norm: nn.BatchNorm2d) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            (x,) = inputs
            if x.numel() > x.shape[1]:
                values = x.to(torch.promote_types(x.dtype, torch.float32))
                var, mean = torch.var_mean(values, (0, 2, 3), correction=0)
                found[norm].append((len(x), mean, var))

        return see

    watches = [norm.register_forward_pre_hook(look(norm)) for norm in norms]
    try:
        for norm in norms:  # by the batch, with dropout off and the running statistics left alone
            norm.training, norm.momentum, norm.num_batches_tracked = True, 0.0, None
        for batch in batches:
            network(batch)
    finally:
        for watch in watches:
            watch.remove()
        for norm, training, momentum, tracked in before:
            norm.training, norm.momentum, norm.num_batches_tracked = training, momentum, tracked
    for norm, seen in found.items():
        if seen and norm.running_mean is not None and norm.running_var is not None:
            count = sum(images for images, _, _ in seen)
            norm.running_mean.lerp_(torch.stack([mean * images for images, mean, _ in seen]).sum(0) / count, share)
            norm.running_var.lerp_(torch.stack([var * images for images, _, var in seen]).sum(0) / count, share)
