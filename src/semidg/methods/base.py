"""The method interface: networks and losses, and nothing of optimisers, loaders, devices, loggers or clocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semidg.augmentation import fourier, strong
from semidg.config import FourierConfig, StrongConfig
from semidg.networks.ema import make_teacher, update_teacher
from semidg.networks.ensemble import Ensemble
from semidg.networks.factory import SegmentationNetwork
from semidg.types import Batch, Progress


class Method(nn.Module, ABC):
    """A method owns its networks; a training loop calls ``losses``, steps an optimiser, calls ``after_step``."""

    #: Names of all loss terms the method can have, in the order of the log.
    terms: tuple[str, ...] = ("supervised",)

    def __init__(self, networks: nn.ModuleList, teacher: float) -> None:
        """networks: one or two ``SegmentationNetwork``. teacher: decay of their moving averages, 0 for none."""
        super().__init__()
        self.networks = networks
        self.decay = teacher
        self.teachers = nn.ModuleList(make_teacher(n) for n in networks) if teacher else None

    @abstractmethod
    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Named scalars, already weighted; their sum is the objective."""

    def forward(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The same as ``losses``: a training engine that wraps the module calls it through here."""
        return self.losses(batch, progress)

    def train(self, mode: bool = True) -> Method:
        """Teachers stay in eval mode: pseudo labels are made without dropout and with running statistics."""
        super().train(mode)
        if self.teachers is not None:
            self.teachers.eval()
        return self

    def ensemble(self) -> Ensemble:
        """The networks that predict: the teachers where there are some, else the networks."""
        return Ensemble(self.networks if self.teachers is None else self.teachers)

    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities (B, K, H, W), the mean of the networks in eval mode; images (B, C, H, W) in [0, 1]."""
        return self.ensemble().predict(images)

    def after_step(self, progress: Progress) -> None:
        """Called once after each optimiser step: the teachers move."""
        if self.teachers is not None:
            for teacher, network in zip(self.teachers, self.networks, strict=True):
                update_teacher(teacher, network, self.decay, progress.step)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For each network its encoder, then the rest; each group has a ``name`` (``0.encoder``) and ``params``."""
        groups = []
        for k, network in enumerate(cast(list[SegmentationNetwork], list(self.networks))):
            encoder = {id(p) for p in network.encoder.parameters()}
            own = list(network.parameters())
            groups.append({"name": f"{k}.encoder", "params": [p for p in own if id(p) in encoder]})
            groups.append({"name": f"{k}.decoder", "params": [p for p in own if id(p) not in encoder]})
        return groups


class Views(NamedTuple):
    """The two views of the unlabelled images, (B_u, C, H, W) each, with the same rectangles mixed in."""

    weak: Tensor
    strong: Tensor
    cutmix: strong.CutMixParameters


def make_views(
    batch: Batch, fourier_config: FourierConfig, strong_config: StrongConfig, generator: torch.Generator
) -> Views:
    """X and Z of the unlabelled images: Z is the Fourier view, photometrically changed; both are cut and mixed alike.

    The amplitudes come from the whole batch, labelled images included.
    """
    pool = torch.cat([batch.unlabelled, batch.labelled])
    domains = torch.cat([batch.unlabelled_domains, batch.labelled_domains])
    count = len(batch.unlabelled)
    rows = torch.arange(count)
    drawn = fourier.sample_parameters(domains, rows, fourier_config, generator)
    z = fourier.fourier_view(pool, rows, drawn, fourier_config)
    if strong_config.photometric > 0:
        z = strong.apply_photometric(z, strong.sample_photometric(z, strong_config, generator))
    boxes = strong.sample_cutmix(count, z.shape[-2], z.shape[-1], strong_config.cutmix, generator)
    return Views(strong.apply_cutmix(batch.unlabelled, boxes), strong.apply_cutmix(z, boxes), boxes)


def log_probabilities(logits: Tensor) -> Tensor:
    """log softmax over the classes in float32; (B, K, H, W)."""
    return F.log_softmax(logits.float(), 1)
