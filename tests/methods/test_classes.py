"""Every method with four classes, every term it can have, and pixels that are not known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from semidg.methods import METHODS, make_method
from semidg.methods.base import Method
from semidg.types import IGNORE_INDEX, Batch, Progress
from tests_support import tiny_config

CLASSES = 4
LATE = Progress(8, 10, 3)
BOUNDARY = {"edge_weight": 0.5, "distance_weight": 2.0, "hausdorff_weight": 0.25}


def build(name: str) -> Method:
    """With the boundary terms, and contrast where there are two networks that can have it."""
    method: dict[str, Any] = {"name": name, "boundary": BOUNDARY}
    if "contrastive" in METHODS[name].terms:
        method |= {"contrastive_weight": 1.0, "contrastive": {"confidence": 0.0}}
    network = tiny_config().network.model_dump() | {"classes": CLASSES}
    return make_method(tiny_config(method=method, network=network)).train()


def batch_of(size: int = 32) -> Batch:
    """A cavity in a ring with a neighbour; rows at the top are not known."""
    g = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, size, size, dtype=torch.long)
    masks[:, 8:24, 6:20] = 2
    masks[:, 12:20, 10:16] = 1
    masks[:, 10:22, 20:28] = 3
    masks[:, :3] = IGNORE_INDEX
    return Batch(
        labelled=torch.rand(2, 1, size, size, generator=g),
        masks=masks,
        unlabelled=torch.rand(2, 1, size, size, generator=g),
        labelled_domains=torch.tensor([0, 1]),
        unlabelled_domains=torch.tensor([0, 1]),
    )


def losses_of(method: Method, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(0)  # dropout
    return method.losses(batch, LATE)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_term_is_finite_and_teaches_every_class(name: str) -> None:
    method = build(name)
    terms = losses_of(method, batch_of())
    assert set(terms) == set(method.terms)
    assert {"edge", "boundary", "hausdorff"} <= set(terms)
    assert all(t.dim() == 0 and torch.isfinite(t) for t in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    for network in method.networks:
        gradient = network.model.segmentation_head[0].weight.grad  # type: ignore[union-attr, index]
        assert gradient.shape[0] == CLASSES
        assert (gradient.flatten(1).abs().sum(1) > 0).all()
    probabilities = method.predict(torch.rand(2, 1, 32, 32))
    assert probabilities.shape == (2, CLASSES, 32, 32)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 32, 32))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_which_class_a_pixel_has_matters_to_every_supervised_term(name: str) -> None:
    batch = batch_of()
    swapped = batch.masks.clone()
    swapped[batch.masks == 2], swapped[batch.masks == 3] = 3, 2
    other = Batch(batch.labelled, swapped, batch.unlabelled, batch.labelled_domains, batch.unlabelled_domains)
    one, two = (losses_of(build(name), b) for b in (batch, other))
    for term in ("supervised", "boundary", "hausdorff"):
        assert one[term].item() != pytest.approx(two[term].item(), rel=1e-6), term
    assert one["edge"].item() == pytest.approx(two["edge"].item())  # edges are the same
