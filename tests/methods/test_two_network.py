"""epl and dual_level: every term against the equations of METHOD sections 3, 4 and 6, written down once more."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semidg.augmentation.strong import apply_cutmix
from semidg.methods import METHODS
from semidg.methods.base import make_views
from semidg.networks.factory import make_pair
from semidg.objectives.supervised import supervised_loss
from semidg.types import Batch, Progress
from tests_support import tiny_config

LATE = Progress(8, 10, 3)
CLASSES, LABELLED, UNLABELLED, SIZE = 3, 2, 3, 32
RAMP = {"warmup": 0.2, "end": 1.0, "maximum": 3.0}
WEIGHT = 3 * math.exp(-5 * 0.25**2)  # w(t) at LATE, three quarters up the ramp
#: Largest distance from the reference, which is in double precision from the softmax on ...
CLOSE = 1e-4
#: ... and the smallest one of what is wrong.
CLEAR = 1e-2


@cache
def built(name: str, teacher: float) -> Any:
    """In train mode, without network dropout, so that a second forward can be compared. The networks are confident,
    one more than the other, so that V_1 and V_2 tell apart; the moving averages differ from them."""
    config = tiny_config(method={"name": name, "teacher": teacher})
    network_config = config.network.model_copy(update={"dropout": 0.0, "classes": CLASSES})
    kind: Any = METHODS[name]
    method = kind(make_pair(network_config, 1, 3), config.method).train()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for network, factor in zip(method.networks, (4, 8), strict=True):
            network.model.segmentation_head[0].weight.mul_(factor)
        for average in method.teachers or []:
            average.model.segmentation_head[0].weight.mul_(4)
            for p in average.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return method


def method_of(name: str, teacher: float, **keys: Any) -> Any:
    """Views that differ, all of them mixed. The networks are the same each time: a step moves their statistics only,
    which nothing here reads."""
    views = {"fourier": {"window": 0.1, "lam": 0.8}, "strong": {"photometric": 1.0, "cutmix": 1.0}}
    method = built(name, teacher)
    method.config = tiny_config(method={"name": name, "teacher": teacher, "ramp": RAMP} | views | keys).method
    return method


def batch_of() -> Batch:
    """Each unlabelled image is brighter than the one before: labels change where another one is pasted."""
    g = torch.Generator().manual_seed(2)
    return Batch(
        labelled=torch.rand(LABELLED, 1, SIZE, SIZE, generator=g),
        masks=torch.randint(0, CLASSES, (LABELLED, SIZE, SIZE), generator=g),
        unlabelled=torch.rand(UNLABELLED, 1, SIZE, SIZE, generator=g) / 2
        + torch.arange(UNLABELLED)[:, None, None, None] / 4,
        labelled_domains=torch.arange(LABELLED) % 2,
        unlabelled_domains=torch.arange(UNLABELLED) % 2,
    )


class Said(NamedTuple):
    """Of one network: P_O, P_F and P_E, (B_u, K, H, W); Y_k, which teaches the other network, the label of X, which
    teaches Z, and the probability of Y_k, (B_u, H, W)."""

    weak: Tensor
    strong: Tensor
    average: Tensor
    label: Tensor
    label_weak: Tensor
    confidence: Tensor


class Reference(NamedTuple):
    """Copies of the networks in train mode, and what they and the averages say of ``batch_of``. ``uncut``: with labels
    that stay where they are on the plain images."""

    networks: nn.ModuleList
    supervised: Tensor
    threshold: float
    said: list[Said]
    uncut: list[Said]


@cache
def reference_of(teacher: float) -> Reference:
    method, batch = method_of("epl", teacher), batch_of()
    views = make_views(batch, method.config.fourier, method.config.strong, LATE.generator())
    assert views.cutmix.inside.any((1, 2)).all()
    networks, supervised, said, uncut = copy.deepcopy(method.networks), [], [], []
    for k, network in enumerate(networks):
        logits = network(torch.cat([batch.labelled, views.weak, views.strong])).logits
        supervised.append(supervised_loss(logits[:LABELLED], batch.masks))
        weak, strong = torch.softmax(logits[LABELLED:].double(), 1).split(UNLABELLED)
        average = (weak + strong) / 2
        if not teacher:  # Y_k = argmax P_E; the label of X is that of P_O
            said.append(Said(weak, strong, average, average.argmax(1), weak.argmax(1), average.amax(1).detach()))
            continue
        with torch.no_grad():  # Q_k of the plain images
            plain = torch.softmax(copy.deepcopy(method.teachers[k])(batch.unlabelled).logits.double(), 1)
        for q, those in ((apply_cutmix(plain, views.cutmix), said), (plain, uncut)):
            those.append(Said(weak, strong, average, q.argmax(1), q.argmax(1), q.amax(1)))
    return Reference(networks, torch.stack(supervised).mean(), threshold_of(said), said, uncut)


def threshold_of(said: list[Said]) -> float:
    """About the median of the confidences of both who label, in the middle of a gap: no rounding moves a pixel."""
    ordered = torch.cat([s.confidence.flatten() for s in said]).sort().values
    half = len(ordered) // 2
    near = ordered[half - 50 : half + 50]
    at = int(near.diff().argmax())
    threshold = float(near[at] + near[at + 1]) / 2
    assert all(0.1 < (s.confidence >= threshold).double().mean() < 0.9 for s in said)
    return threshold


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """sum_c P log(P / Q)."""
    return (p * torch.log(p / q)).sum(1)


def entropy_of_labels(p: Tensor, label: Tensor) -> Tensor:
    """-sum_c Y_c log P_c, Y one-hot."""
    return -(F.one_hot(label, CLASSES).movedim(-1, 1) * torch.log(p)).sum(1)


def slow_cacps(
    said: list[Said], threshold: float, form: str = "pixel", detach: bool = False, **taught_in_its_place: bool
) -> Tensor:
    """L_a + L_b (equations 3 to 5). taught_in_its_place: what of the network that teaches is, wrongly, of the other."""
    total = torch.zeros((), dtype=torch.float64)
    for teaching, taught in (said, said[::-1]):
        label, keep, variance = (
            taught if taught_in_its_place.get(name) else teaching for name in ("label", "keep", "variance")
        )
        v = divergence(variance.strong, variance.weak)
        v = v.detach() if detach else v
        entropy = entropy_of_labels(taught.average, label.label) * (keep.confidence >= threshold)
        if form == "pixel":
            total = total + (torch.exp(-v) * entropy + v).mean()
        elif form == "scalar":
            total = total + torch.exp(-v).mean() * entropy.mean() + v.mean()
        else:
            total = total + entropy.mean()
    return total


def slow_dice(p: Tensor, label: Tensor, keep: Tensor) -> Tensor:
    """1 - mean over images and foreground classes of (2 sum p y + 1) / (sum p + sum y + 1), of the pixels in keep."""
    scores = []
    for b in range(UNLABELLED):
        for c in range(1, CLASSES):
            given, true = p[b, c][keep[b]], (label[b] == c)[keep[b]].double()
            scores.append((2 * (given * true).sum() + 1) / (given.sum() + true.sum() + 1))
    return 1 - torch.stack(scores).mean()


def slow_view(said: list[Said], threshold: float, direction: str, dice: float) -> Tensor:
    """L_view, mean over the networks: labels of X, where Y_k is trusted, teach P_F; those of P_F, all, teach P_O."""
    total = torch.zeros((), dtype=torch.float64)
    for s in said:
        keep = s.confidence >= threshold
        lessons = [(s.strong, s.label_weak, keep)]
        if direction == "both":
            lessons.append((s.weak, s.strong.argmax(1), torch.ones_like(keep)))
        for p, label, kept in lessons:
            total = total + ((entropy_of_labels(p, label) * kept).mean() + dice * slow_dice(p, label, kept)) / 2
    return total


def slow_network(said: list[Said], between: str, swapped: bool = False) -> Tensor:
    """V_12 + V_21 (equations 8 and 9), or KL(P_F^2 || P_O^1) + KL(P_F^1 || P_O^2). swapped: with each other's P_F."""
    a, b = said
    if between == "averaged":
        return divergence(a.average, b.average).mean() + divergence(b.average, a.average).mean()
    strong = (a.strong, b.strong) if swapped else (b.strong, a.strong)
    return divergence(strong[0], a.weak).mean() + divergence(strong[1], b.weak).mean()


def gradient_of(loss: Tensor, networks: nn.ModuleList) -> Tensor:
    """Of every parameter of both networks, in one vector."""
    gradients = torch.autograd.grad(loss, list(networks.parameters()), retain_graph=True)
    return torch.cat([g.flatten() for g in gradients])


def distance(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|, of numbers or of gradients."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


def compare(method: Any, slow: dict[str, Tensor], reference: Reference) -> None:
    """The named terms of a step over w(t), and the gradient of their sum."""
    named = method.losses(batch_of(), LATE)
    assert set(named) == {"supervised", *slow}
    assert distance(named.pop("supervised"), reference.supervised) < CLOSE
    for name, term in named.items():
        assert distance(term / WEIGHT, slow[name]) < CLOSE, name
    gradient = gradient_of(torch.stack(list(named.values())).sum() / WEIGHT, method.networks)
    assert distance(gradient, gradient_of(torch.stack(list(slow.values())).sum(), reference.networks)) < CLOSE


@pytest.mark.parametrize("teacher", [0.99, 0.0])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("form", ["pixel", "scalar", "none"])
@pytest.mark.parametrize("name", ["epl", "dual_level"])
def test_cacps(name: str, form: str, detach: bool, teacher: float) -> None:
    """Every way of taking the one network for the other gives a value that is clearly another one."""
    reference = reference_of(teacher)
    said, threshold = reference.said, reference.threshold
    keys = {"confidence": form, "detach_confidence": detach, "threshold": threshold}
    off = {"view_weight": 0.0, "network_weight": 0.0} if name == "dual_level" else {}
    right = slow_cacps(said, threshold, form, detach)
    compare(method_of(name, teacher, **keys, **off), {"cacps": right}, reference)
    wrong = {
        "label": slow_cacps(said, threshold, form, label=True),
        "keep": slow_cacps(said, threshold, form, keep=True),
        "threshold": slow_cacps(said, 0, form),
        "form": slow_cacps(said, threshold, {"pixel": "scalar", "scalar": "none", "none": "pixel"}[form]),
    }
    if form != "none":
        wrong["variance"] = slow_cacps(said, threshold, form, variance=True)
    if teacher:
        wrong["uncut"] = slow_cacps(reference.uncut, threshold, form)
    assert {key for key, value in wrong.items() if distance(value, right) < CLEAR} == set()
    other, own = (gradient_of(slow_cacps(said, threshold, form, d), reference.networks) for d in (not detach, detach))
    assert (distance(other, own) > CLEAR) == (form != "none")


@pytest.mark.parametrize("teacher", [0.99, 0.0])
@pytest.mark.parametrize("between", ["averaged", "cross_view"])
@pytest.mark.parametrize("dice", [0.0, 0.5])
@pytest.mark.parametrize("direction", ["weak_to_strong", "both"])
def test_view_and_network_of_dual_level(direction: str, dice: float, between: str, teacher: float) -> None:
    reference = reference_of(teacher)
    said, threshold = reference.said, reference.threshold
    keys = {"view_direction": direction, "view_dice": dice, "between": between, "threshold": threshold}
    method = method_of("dual_level", teacher, view_weight=0.7, network_weight=0.4, **keys)
    view, network = slow_view(said, threshold, direction, dice), slow_network(said, between)
    compare(method, {"cacps": slow_cacps(said, threshold), "view": 0.7 * view, "network": 0.4 * network}, reference)
    others = {"averaged": "cross_view", "cross_view": "averaged"}
    wrong = {
        "threshold": distance(slow_view(said, 0, direction, dice), view),
        "dice": distance(slow_view(said, threshold, direction, 0.5 - dice), view),
        "between": distance(slow_network(said, others[between]), network),
    }
    if between == "cross_view":
        wrong["swapped"] = distance(slow_network(said, between, swapped=True), network)
    if teacher:
        wrong["uncut"] = distance(slow_view(reference.uncut, threshold, direction, dice), view)
    assert {key for key, value in wrong.items() if value < CLEAR} == set()
