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
#: In ``method.losses`` all is in single precision, here from the softmax on in double.
CLOSE = 1e-3
#: What is wrong by less could pass for rounding.
CLEAR = 1e-2


def config_of(name: str, **keys: Any) -> Any:
    """Without network dropout, so that a second forward can be compared; views that differ, all of them mixed."""
    views = {"fourier": {"window": 0.1, "lam": 0.8}, "strong": {"photometric": 1.0, "cutmix": 1.0}}
    config = tiny_config(method={"name": name, "ramp": RAMP} | views | keys)
    return config.model_copy(
        update={"network": config.network.model_copy(update={"dropout": 0.0, "classes": CLASSES})}
    )


@cache
def networks_of() -> nn.ModuleList:
    """More confident than untrained ones are, so that V and the confidences are large enough to tell apart."""
    networks: Any = make_pair(config_of("epl").network, 1, 3)
    with torch.no_grad():
        for network in networks:
            network.model.segmentation_head[0].weight.mul_(4)
    return networks


def method_of(name: str, **keys: Any) -> Any:
    """In train mode, with moving averages that differ from the networks."""
    method: Any = METHODS[name](copy.deepcopy(networks_of()), config_of(name, **keys).method).train()  # type: ignore
    with torch.no_grad():
        generator = torch.Generator().manual_seed(9)
        for teacher in method.teachers or []:
            for p in teacher.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return method


def batch_of() -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch(
        labelled=torch.rand(LABELLED, 1, SIZE, SIZE, generator=g),
        masks=torch.randint(0, CLASSES, (LABELLED, SIZE, SIZE), generator=g),
        unlabelled=torch.rand(UNLABELLED, 1, SIZE, SIZE, generator=g),
        labelled_domains=torch.arange(LABELLED) % 2,
        unlabelled_domains=torch.arange(UNLABELLED) % 2,
    )


class Said(NamedTuple):
    """Of one network: P_O, P_F and P_E, (B_u, K, H, W), and the labels (B_u, H, W) that it, or its average, gives."""

    weak: Tensor
    strong: Tensor
    average: Tensor
    label: Tensor
    label_weak: Tensor
    confidence: Tensor


class Reference(NamedTuple):
    """Copies of the networks in train mode, and what they and the averages say. ``uncut``: labels that stay where they
    were, though the views are cut and mixed."""

    networks: nn.ModuleList
    supervised: Tensor
    said: list[Said]
    uncut: list[Said]


def reference_of(method: Any, batch: Batch) -> Reference:
    c = method.config
    views = make_views(batch, c.fourier, c.strong, LATE.generator())
    assert views.cutmix.inside.any((1, 2)).all()
    networks, supervised, said, uncut = copy.deepcopy(method.networks), [], [], []
    for k, network in enumerate(networks):
        logits = network(torch.cat([batch.labelled, views.weak, views.strong])).logits
        supervised.append(supervised_loss(logits[:LABELLED], batch.masks))
        weak, strong = torch.softmax(logits[LABELLED:].double(), 1).split(UNLABELLED)
        average = (weak + strong) / 2
        if method.teachers is None:  # Y_k = argmax P_E; the views' own labels are those of P_O and P_F
            said.append(Said(weak, strong, average, average.argmax(1), weak.argmax(1), average.amax(1).detach()))
            continue
        with torch.no_grad():  # Q_k of the plain images
            plain = torch.softmax(copy.deepcopy(method.teachers[k])(batch.unlabelled).logits.double(), 1)
        for q, those in ((apply_cutmix(plain, views.cutmix), said), (plain, uncut)):
            those.append(Said(weak, strong, average, q.argmax(1), q.argmax(1), q.amax(1)))
    return Reference(networks, sum(supervised) / 2, said, uncut)


def threshold_of(name: str, **keys: Any) -> float:
    """About the median of the confidences of both who label, in the middle of a gap: no rounding moves a pixel."""
    said = reference_of(method_of(name, **keys), batch_of()).said
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
    said: list[Said], threshold: float, form: str = "pixel", detach: bool = False, keep: int = 0, variance: int = 0
) -> Tensor:
    """L_a + L_b (equations 3 to 5). keep, variance: 0 those of the network that teaches, 1 (wrong) of the taught."""
    total = torch.zeros((), dtype=torch.float64)
    for pair in ((said[0], said[1]), (said[1], said[0])):
        teaching, taught = pair
        v = divergence(pair[variance].strong, pair[variance].weak)
        v = v.detach() if detach else v
        entropy = entropy_of_labels(taught.average, teaching.label) * (pair[keep].confidence >= threshold)
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
    """L_view: the labels of X, where they are trusted, teach P_F; those of P_F, all of them, teach P_O."""
    terms = []
    for s in said:
        keep = s.confidence >= threshold
        taught = [(s.strong, s.label_weak, keep)]
        if direction == "both":
            taught.append((s.weak, s.strong.argmax(1), torch.ones_like(keep)))
        terms.append(
            sum((entropy_of_labels(p, y) * kept).mean() + dice * slow_dice(p, y, kept) for p, y, kept in taught)
        )
    return (terms[0] + terms[1]) / 2


def slow_network(said: list[Said], between: str, swapped: bool = False) -> Tensor:
    """V_12 + V_21 (equations 8 and 9), or KL(P_F^2 || P_O^1) + KL(P_F^1 || P_O^2). swapped: P_F^1 for P_F^2, wrong."""
    a, b = said
    if between == "averaged":
        return divergence(a.average, b.average).mean() + divergence(b.average, a.average).mean()
    first, second = (a.strong, b.strong) if swapped else (b.strong, a.strong)
    return divergence(first, a.weak).mean() + divergence(second, b.weak).mean()


def gradient_of(loss: Tensor, networks: nn.ModuleList) -> Tensor:
    """Of every parameter of both networks, in one vector."""
    parameters = list(networks.parameters())
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, gradients, strict=True)]
    )


def distance(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b| of numbers or of gradients."""
    return float((a.double() - b.double()).norm() / b.double().norm())


def check(method: Any, slow: dict[str, Tensor], reference: Reference) -> None:
    """The named terms of a step over w(t), and the gradient of their sum; ``supervised`` is not scaled."""
    named = method.losses(batch_of(), LATE)
    assert set(named) == {"supervised", *slow}
    assert distance(named.pop("supervised"), reference.supervised) < CLOSE
    for name, term in named.items():
        assert distance(term / WEIGHT, slow[name]) < CLOSE, name
    gradients = [
        gradient_of(torch.stack(list(terms.values())).sum(), networks)
        for terms, networks in ((named, method.networks), (slow, reference.networks))
    ]
    assert distance(gradients[0] / WEIGHT, gradients[1]) < CLOSE


@pytest.mark.parametrize("teacher", [0.99, 0.0])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("form", ["pixel", "scalar", "none"])
@pytest.mark.parametrize("name", ["epl", "dual_level"])
def test_cacps(name: str, form: str, detach: bool, teacher: float) -> None:
    """With what one network could be mistaken for in place of the other: the loss would be another one."""
    keys = {"confidence": form, "detach_confidence": detach, "teacher": teacher}
    keys |= {"view_weight": 0.0, "network_weight": 0.0} if name == "dual_level" else {}
    threshold = threshold_of(name, **keys)
    method = method_of(name, threshold=threshold, **keys)
    reference = reference_of(method, batch_of())
    right = slow_cacps(reference.said, threshold, form, detach)
    check(method, {"cacps": right}, reference)
    wrong = {
        "keep": slow_cacps(reference.said, threshold, form, detach, keep=1),
        "threshold": slow_cacps(reference.said, 0, form, detach),
        "form": slow_cacps(reference.said, threshold, {"pixel": "none", "scalar": "pixel", "none": "pixel"}[form]),
    }
    if form != "none":
        wrong["variance"] = slow_cacps(reference.said, threshold, form, detach, variance=1)
    if teacher:
        wrong["uncut"] = slow_cacps(reference.uncut, threshold, form, detach)
    print(name, form, detach, teacher, {key: round(distance(value, right), 4) for key, value in wrong.items()})
    for key, value in wrong.items():
        assert distance(value, right) > CLEAR, key
    other = gradient_of(slow_cacps(reference.said, threshold, form, not detach), reference.networks)
    print(distance(other, gradient_of(right, reference.networks)))
    assert (distance(other, gradient_of(right, reference.networks)) > CLEAR) == (form != "none")


@pytest.mark.parametrize("teacher", [0.99, 0.0])
@pytest.mark.parametrize("between", ["averaged", "cross_view"])
@pytest.mark.parametrize("dice", [0.0, 0.5])
@pytest.mark.parametrize("direction", ["weak_to_strong", "both"])
def test_dual_level(direction: str, dice: float, between: str, teacher: float) -> None:
    """The threshold is that of Y_k for ``view`` too, where the labels of X are P_O's own (``teacher: 0``)."""
    keys = {"view_direction": direction, "view_dice": dice, "between": between, "teacher": teacher}
    keys |= {"view_weight": 0.7, "network_weight": 0.4}
    threshold = threshold_of("dual_level", **keys)
    method = method_of("dual_level", threshold=threshold, **keys)
    reference = reference_of(method, batch_of())
    view, network = slow_view(reference.said, threshold, direction, dice), slow_network(reference.said, between)
    slow = {"cacps": slow_cacps(reference.said, threshold), "view": 0.7 * view, "network": 0.4 * network}
    check(method, slow, reference)
    wrong = [
        (slow_view(reference.said, 0, direction, dice), view),
        (slow_network(reference.said, {"averaged": "cross_view", "cross_view": "averaged"}[between]), network),
    ]
    if between == "cross_view":
        wrong.append((slow_network(reference.said, between, swapped=True), network))
    if teacher:
        wrong.append((slow_view(reference.uncut, threshold, direction, dice), view))
    print(direction, dice, between, teacher, [round(distance(*pair), 4) for pair in wrong])
    assert all(distance(*pair) > CLEAR for pair in wrong)
