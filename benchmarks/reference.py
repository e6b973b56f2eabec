"""Our step of EPL against a step with the passes of its published code, on the same networks and images.

The schedule of passes is that of the code beside Yao, Hu, Li (AAAI 2022): two batches of unlabelled images and their
Fourier views go through both networks without a gradient, one call each (eight), for pseudo labels that are then cut
and mixed; the mixed images, their mixed views and the labelled images go through both again with one (six). Loss terms
are ours, in the published scalar form. The second unlabelled batch is the first in another order, and views are given:
what the reference would spend on loading and transforming is not counted. It has no averages and no clipping.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.convolutions import with_plain_convolutions
from benchmarks.figure import Figure, figure
from benchmarks.training import (
    autocast,
    channels_last,
    configure,
    first_batch,
    new_method,
    over_neighbours,
    precisions,
    repeated,
    seconds,
    train,
    write_data,
)
from semidg.augmentation.strong import sample_cutmix
from semidg.config import ExperimentConfig
from semidg.method_config import FourierConfig, StrongConfig
from semidg.methods.base import log_probabilities, make_views
from semidg.objectives.confidence import confidence_aware_loss, variance
from semidg.objectives.supervised import supervised_loss
from semidg.types import Batch, Progress


class Published:
    """A step of EPL by the published schedule of passes."""

    def __init__(self, networks: nn.ModuleList, batch: Batch, precision: str) -> None:
        """batch: labelled and as many unlabelled images, channels_last."""
        self.networks, self.batch, self.precision = networks, batch, precision
        generator = Progress(0, 1).generator()
        plain = make_views(batch, FourierConfig(), StrongConfig(photometric=0, cutmix=0), generator)
        # two batches, each as X and Z; the second is the first in another order
        self.views = [
            (v, v.roll(1, 0).contiguous(memory_format=torch.channels_last)) for v in (plain.weak, plain.strong)
        ]
        self.boxes = sample_cutmix(len(plain.weak), *plain.weak.shape[-2:], 1.0, generator)
        self.optimisers = [torch.optim.AdamW(n.parameters(), lr=1e-4, fused=True) for n in networks]

    def mix(self, first: Tensor, second: Tensor) -> Tensor:
        """The first with rectangles of the second, (B, ., H, W)."""
        return torch.where(self.boxes.inside.unsqueeze(1), second, first)

    def labels(self, network: nn.Module) -> Tensor:
        """Pseudo labels (B, H, W): of the mean of the logits of both views, in train mode, four calls."""
        with torch.no_grad():
            logits = [[network(images).logits.float() for images in view] for view in self.views]
            means = [(x + z) / 2 for x, z in zip(*logits, strict=True)]
            return self.mix(*means).argmax(1)

    def __call__(self) -> None:
        """Eight passes without a gradient, six with one, backward, two optimisers."""
        with autocast(self.precision):
            labels = [self.labels(network) for network in self.networks]
            mixed = [self.mix(*view) for view in self.views]
            logs = [[log_probabilities(n(images).logits) for images in mixed] for n in self.networks]
            terms = [supervised_loss(n(self.batch.labelled).logits, self.batch.masks) for n in self.networks]
        for teaching in (0, 1):
            learning = logs[1 - teaching][0]
            terms.append(confidence_aware_loss(learning, labels[teaching], variance(*logs[teaching]), "scalar"))
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        torch.stack(terms).sum().backward()
        for optimiser in self.optimisers:
            optimiser.step()


def measure(config: ExperimentConfig, rounds: int, plain: bool) -> list[float]:
    """The ratio of each round; plain: the reference with PyTorch's own convolutions."""
    batch = first_batch(config)
    networks = new_method(config).networks
    reference = Published(with_plain_convolutions(networks) if plain else networks, channels_last(batch),
                          config.trainer.precision)  # fmt: skip
    reference()
    times: list[float] = []
    ours = train(config, repeated(batch, rounds + 1), lambda: times.append(seconds(reference)))
    return over_neighbours(ours, times)


def figures(quick: bool) -> list[Figure]:
    """In 32-bit and, where the processor has it, bf16, with 8 labelled and 8 unlabelled images."""
    size, rounds = (2, 2) if quick else (8, 11)
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, quick)
        for precision, plain in [("32", False)] if quick else [*((p, False) for p in precisions()), ("32", True)]:
            config = configure(folder, "epl", quick, batch_labelled=size, batch_unlabelled=size, precision=precision)
            about = ("32-bit" if precision == "32" else precision) + (", PyTorch's convolutions" if plain else "")
            target = None if plain else 0.65
            found.append(figure(f"step / published passes, {about}", measure(config, rounds, plain), target=target))
    return found
