"""The method interface: networks and losses, and nothing of optimisers, loaders, devices, loggers or clocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semidg import ranks
from semidg.augmentation import fourier, strong
from semidg.config import LabelledViewConfig
from semidg.method_config import BoundaryConfig, FourierConfig, StrongConfig
from semidg.networks.ema import MovingAverage, make_teacher
from semidg.networks.ensemble import Ensemble
from semidg.networks.factory import NetworkOutput, SegmentationNetwork
from semidg.networks.folding import Folded
from semidg.networks.heads import EdgeHead, feature_channels
from semidg.objectives.boundary import boundary_loss, edge_loss, hausdorff_loss, signed_distance
from semidg.objectives.supervised import supervised_loss
from semidg.types import Batch, Progress


class Method(nn.Module, ABC):
    """A method owns its networks; a training loop calls ``losses``, steps an optimiser, calls ``after_step``."""

    #: Names of the loss terms in the order of the log: of a class all it can have, of a method those that are on.
    terms: tuple[str, ...] = ("supervised",)
    #: How many networks it has; a configuration with a key ``networks`` says so itself.
    count: int = 1

    def __init__(self, networks: nn.ModuleList, teacher: float, boundary: BoundaryConfig) -> None:
        """networks: one or two ``SegmentationNetwork``. teacher: decay of their moving averages, 0 for none.

        boundary: weights of the boundary terms of the supervised part.
        """
        super().__init__()
        self.networks = networks
        self.decay = teacher
        self.teachers = nn.ModuleList(make_teacher(n) for n in networks) if teacher else None
        self._averages: list[MovingAverage] | None = None
        self._folded: list[Folded] | None = None
        #: For each kind a head a network: trained, kept in checkpoints, no part of what predicts.
        self.heads = nn.ModuleDict()
        self.boundary = boundary
        weights = {"edge": boundary.edge_weight, "boundary": boundary.distance_weight}
        weights["hausdorff"] = boundary.hausdorff_weight
        self.terms = (*type(self).terms, *weights)
        self.leave_out(weights)
        if boundary.edge_weight:
            self.add_heads("edge", EdgeHead)

    def leave_out(self, weights: Mapping[str, float]) -> None:
        """Takes the terms of weight 0 from ``terms``: no log has a column for what is off. weights: by term."""
        self.terms = tuple(name for name in self.terms if weights.get(name, 1))

    def add_heads(self, kind: str, make: Callable[[int], nn.Module]) -> None:
        """A head for each network, made from the number of its feature channels, under ``heads[kind]``."""
        self.heads[kind] = nn.ModuleList(make(feature_channels(n)) for n in self.networks)

    def heads_of(self, kind: str) -> nn.ModuleList:
        """The heads of a kind, in the order of the networks."""
        return cast(nn.ModuleList, self.heads[kind])

    def supervised_terms(
        self, outputs: Sequence[NetworkOutput], masks: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """``supervised`` and the boundary terms that are on, each the mean over the networks (METHOD section 2).

        outputs: one a network, its first rows the labelled images. masks: (B_l, H, W) int64.
        """
        c, (count, height, width) = self.boundary, masks.shape
        logits = [o.logits[:count] for o in outputs]
        named = {"supervised": [supervised_loss(z, masks) for z in logits]}
        if c.edge_weight:
            edges = zip(self.heads_of("edge"), outputs, strict=True)
            named["edge"] = [
                c.edge_weight * edge_loss(head(o.features[:count], height, width), masks) for head, o in edges
            ]
        if c.distance_weight:
            weight = c.distance_weight * progress.fraction
            distance = signed_distance(masks, logits[0].shape[1])
            named["boundary"] = [weight * boundary_loss(z, masks, distance) for z in logits]
        if c.hausdorff_weight:
            named["hausdorff"] = [c.hausdorff_weight * hausdorff_loss(z, masks) for z in logits]
        return {name: torch.stack(terms).mean() for name, terms in named.items()}

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

    def average(self, network: int = 0) -> Folded:
        """The moving average of a network as it labels: the numbers of ``teachers[network]``, but for rounding."""
        assert self.teachers is not None
        if self._folded is None:
            self._folded = [Folded(teacher) for teacher in self.teachers]
        return self._folded[network]

    def ensemble(self) -> Ensemble:
        """The networks that predict: the teachers where there are some, else the networks."""
        return Ensemble(self.networks if self.teachers is None else self.teachers)

    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities (B, K, H, W), the mean of the networks in eval mode; images (B, C, H, W) in [0, 1]."""
        return self.ensemble().predict(images)

    def after_step(self, progress: Progress) -> None:
        """Called once after each optimiser step: the teachers move."""
        if self.teachers is not None:
            if self._averages is None:
                self._averages = [MovingAverage(*pair) for pair in zip(self.teachers, self.networks, strict=True)]
            for average in self._averages:
                average.move(self.decay, progress.step)

    def _apply(self, *args: Any, **kwargs: Any) -> Method:
        """To another device or type: PyTorch makes other buffers."""
        self._averages = self._folded = None
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For each network its encoder, the rest, and its heads if any; each group has a ``name`` (``0.encoder``) and
        ``params``."""
        groups = []
        for k, network in enumerate(cast(list[SegmentationNetwork], list(self.networks))):
            encoder = {id(p) for p in network.encoder.parameters()}
            own = list(network.parameters())
            groups.append({"name": f"{k}.encoder", "params": [p for p in own if id(p) in encoder]})
            groups.append({"name": f"{k}.decoder", "params": [p for p in own if id(p) not in encoder]})
            heads = [p for kind in self.heads for p in self.heads_of(kind)[k].parameters()]
            if heads:
                groups.append({"name": f"{k}.heads", "params": heads})
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

    The amplitudes come from the whole batch, labelled images included. ``cutmix`` is of the batch of all ranks.
    """
    z = _fourier(batch, ("unlabelled", "labelled"), fourier_config, generator)
    if strong_config.photometric > 0:
        z = strong.apply_photometric(z, strong.sample_photometric(z, strong_config, generator))
    count = len(z) * ranks.world()
    boxes = strong.sample_cutmix(count, z.shape[-2], z.shape[-1], strong_config.cutmix, generator)
    return Views(strong.apply_cutmix(batch.unlabelled, boxes), strong.apply_cutmix(z, boxes), boxes)


def strong_labelled(batch: Batch, config: LabelledViewConfig, generator: torch.Generator) -> Batch:
    """The batch with some labelled images, drawn one by one, in their strong view; masks stay as they are."""
    count = len(batch.labelled) * ranks.world()
    chosen = ranks.own(torch.rand(count, generator=generator) < config.probability)
    view = _fourier(batch, ("labelled", "unlabelled"), config.fourier, generator)
    if config.photometric > 0:
        strength = StrongConfig(photometric=config.photometric, cutmix=0)
        view = strong.apply_photometric(view, strong.sample_photometric(view, strength, generator))
    mixed = torch.where(ranks.send(chosen, view.device)[:, None, None, None], view, batch.labelled)
    return replace(batch, labelled=mixed.contiguous(memory_format=torch.channels_last))


def _fourier(batch: Batch, kinds: tuple[str, str], config: FourierConfig, generator: torch.Generator) -> Tensor:
    """Fourier view of the images of the first kind, (B, C, H, W); partners are images of both, of all ranks."""
    pool = torch.cat([ranks.gather(getattr(batch, kind)) for kind in kinds])
    domains = torch.cat([ranks.gather(getattr(batch, f"{kind}_domains")) for kind in kinds])
    rows = torch.arange(len(getattr(batch, kinds[0])) * ranks.world())
    drawn = fourier.sample_parameters(domains, rows, config, generator)
    drawn = fourier.FourierParameters(*(ranks.own(values) for values in drawn))
    return fourier.fourier_view(pool, ranks.own(rows), drawn, config)


def log_probabilities(logits: Tensor) -> Tensor:
    """log softmax over the classes in float32; (B, K, H, W)."""
    return F.log_softmax(logits.float(), 1)
