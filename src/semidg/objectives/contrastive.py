"""The contrastive module (METHOD section 5): choose pixels by class, compare the two networks' embeddings of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from semidg import ranks
from semidg.method_config import ContrastiveConfig


class Anchors(NamedTuple):
    """Sampled pixels, (M,) int64 each: image in the batch, row, column, and class number."""

    image: Tensor
    row: Tensor
    column: Tensor
    label: Tensor


def choose_anchors(
    labels: Tensor, band: Tensor, classes: int, config: ContrastiveConfig, generator: torch.Generator
) -> Anchors:
    """At most ``config.anchors`` pixels of each class, drawn without replacement, ``config.boundary_share`` of them
    from the band along the boundary; where one side of the band has too few, the other fills up.

    labels: (B, h, w) int64, true or pseudo; pixels that must not be drawn are none of the classes (IGNORE_INDEX).
    band: (B, h, w) bool. generator: on the CPU.
    """
    chosen = []
    for c in range(classes):
        own = labels == c
        near, far = torch.nonzero(own & band), torch.nonzero(own & ~band)
        wanted = max(round(config.boundary_share * config.anchors), config.anchors - len(far))
        from_band = min(len(near), wanted)
        chosen += [_draw(near, from_band, generator), _draw(far, config.anchors - from_band, generator)]
    image, row, column = torch.cat(chosen).unbind(1)
    return Anchors(image, row, column, labels[image, row, column])


def _draw(positions: Tensor, count: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(positions), generator=generator)[:count]
    return positions[ranks.send(order, positions.device)]


def info_nce(anchors: Tensor, positives: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """InfoNCE (van den Oord, Li, Vinyals, arXiv 1807.03748, eq. 4) with the negatives of other classes only.

        l_i = -log( exp(a_i . p_i / t) / ( exp(a_i . p_i / t) + sum_{j: y_j != y_i} exp(a_i . p_j / t) ) )

    anchors, positives: a and p, (M, E), of length 1; positives get no gradient. labels: y, (M,) int64. Returns the mean
    over the classes present of the mean over their pixels; 0 for M = 0 or a single class, and its graph is kept.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        logits = anchors.float() @ positives.detach().float().T / temperature
    same = labels[:, None] == labels[None, :]
    same.fill_diagonal_(False)
    losses = -torch.log_softmax(logits.masked_fill(same, -torch.inf), 1).diagonal()
    counts = torch.bincount(labels)
    weights = 1 / (counts[labels] * (counts > 0).sum())
    return (losses * weights).sum()


def contrastive_loss(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], labels: Tensor, temperature: float
) -> Tensor:
    """L_con: mean of ``info_nce`` over both networks and both views, each pixel against the *other* network's
    embeddings of the *other* view.

    first, second: of f_1 and f_2, embeddings of the same M pixels in view X and in view Z, (M, E) each (a labelled
    image has one view, which stands in both places). labels: (M,) int64.
    """
    terms = [
        info_nce(own[view], other[1 - view], labels, temperature)
        for own, other in ((first, second), (second, first))
        for view in (0, 1)
    ]
    return torch.stack(terms).mean()
