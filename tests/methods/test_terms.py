"""Terms that any method may have: boundary terms of the supervised part, and contrast between two networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from semidg.methods import METHODS, make_method
from semidg.methods import two_network as module
from semidg.methods.base import Method
from semidg.networks.heads import labels_at_features
from semidg.objectives.boundary import boundary_loss, edge_loss, hausdorff_loss, signed_distance
from semidg.objectives.contrastive import Anchors
from semidg.types import IGNORE_INDEX, Batch, Progress
from small_networks import small_pair
from tests_support import tiny_config

LATE = Progress(8, 10, 3)
ALL = {"edge_weight": 0.5, "distance_weight": 2.0, "hausdorff_weight": 0.25}


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semidg.methods.make_pair", small_pair)


def build(name: str, **changes: Any) -> Method:
    return make_method(tiny_config(method={"name": name, **changes})).train()


def batch_of(images: int = 2, size: int = 32) -> Batch:
    g = torch.Generator().manual_seed(0)
    masks = torch.zeros(images, size, size, dtype=torch.long)
    masks[:, 6:20, 9:25] = 1
    masks[:, :2] = IGNORE_INDEX
    return Batch(
        labelled=torch.rand(images, 1, size, size, generator=g),
        masks=masks,
        unlabelled=torch.rand(images, 1, size, size, generator=g),
        labelled_domains=torch.arange(images),
        unlabelled_domains=torch.arange(images),
    )


def losses_of(method: Method, batch: Batch, progress: Progress = LATE) -> dict[str, Tensor]:
    torch.manual_seed(0)  # dropout
    return method.losses(batch, progress)


def contrastive(name: str = "epl", weight: float = 1.0, **changes: Any) -> Method:
    """Without confidence, so that untrained networks give anchors."""
    section = {"confidence": 0.0, **changes.pop("contrastive", {})}
    return build(name, contrastive_weight=weight, contrastive=section, **changes)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_the_boundary_terms_and_none_by_default(name: str) -> None:
    plain, method, batch = build(name), build(name, boundary=ALL), batch_of()
    assert not list(plain.heads.parameters())
    assert {key.split(".")[0] for key in plain.state_dict()} <= {"networks", "teachers"}
    without, terms = losses_of(plain, batch), losses_of(method, batch)
    added = {"edge", "boundary", "hausdorff"}
    assert not {*added, "contrastive"} & set(without)
    assert not added & set(plain.terms)
    assert set(terms) == set(without) | added
    assert set(terms) <= set(method.terms)
    assert all(torch.equal(terms[key], without[key]) for key in without)
    assert set(losses_of(method, batch, Progress(0, 10, 3))) >= {"supervised", *added}  # before the ramp too
    heads = list(method.heads.parameters())
    assert len(heads) == 4 * len(method.networks)
    grouped = [p for g in method.parameter_groups() for p in g["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in method.parameters() if p.requires_grad}
    assert len({id(p) for p in grouped}) == len(grouped)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(terms["edge"], heads))


def test_boundary_terms_are_weighted_means_over_the_networks() -> None:
    method, batch = build("supervised", boundary=ALL), batch_of()
    terms = losses_of(method, batch)
    torch.manual_seed(0)
    outputs = [network(batch.labelled) for network in method.networks]
    distance = signed_distance(batch.masks, 2)
    edges = [
        edge_loss(head(o.features, 32, 32), batch.masks)
        for head, o in zip(method.heads_of("edge"), outputs, strict=True)
    ]
    expected = {
        "edge": [0.5 * e for e in edges],
        "boundary": [2 * 0.8 * boundary_loss(o.logits, batch.masks, distance) for o in outputs],
        "hausdorff": [0.25 * hausdorff_loss(o.logits, batch.masks) for o in outputs],
    }
    for name, values in expected.items():
        torch.testing.assert_close(terms[name], torch.stack(values).mean())


@pytest.mark.parametrize(("key", "term"), list(zip(ALL, ("edge", "boundary", "hausdorff"), strict=True)))
def test_each_boundary_weight_switches_its_own_term(key: str, term: str) -> None:
    method = build("supervised", networks=1, boundary={key: 1.0})
    assert set(losses_of(method, batch_of())) == {"supervised", term}
    assert method.terms == ("supervised", term)
    assert bool(list(method.heads.parameters())) == (term == "edge")


def test_the_boundary_weight_rises_linearly() -> None:
    method = build("supervised", boundary={"distance_weight": 1.0})
    start, half, full = (losses_of(method, batch_of(), Progress(s, 10))["boundary"] for s in (0, 5, 10))
    assert start.item() == 0
    torch.testing.assert_close(full, 2 * half)


@pytest.mark.parametrize(("name", "teacher"), [("epl", 0), ("dual_level", 0.99)])
def test_contrast_is_a_term_of_its_own(name: str, teacher: float) -> None:
    off, on = build(name, teacher=teacher), contrastive(name, 0.3, teacher=teacher)
    batch = batch_of()
    without, terms = losses_of(off, batch), losses_of(on, batch)
    assert set(terms) == set(without) | {"contrastive"}
    assert set(terms) <= set(on.terms)
    assert all(torch.equal(terms[key], without[key]) for key in without)
    assert terms["contrastive"] > 0
    gradients = torch.autograd.grad(terms["contrastive"], list(on.heads.parameters()))
    assert len(gradients) == 8
    assert all(g.abs().sum() > 0 for g in gradients)
    torch.testing.assert_close(
        losses_of(contrastive(name, 0.6, teacher=teacher), batch)["contrastive"], 2 * terms["contrastive"]
    )


def test_heads_are_trained_saved_and_left_out_of_what_predicts() -> None:
    method = contrastive(boundary={"edge_weight": 1.0})
    names = [g["name"] for g in method.parameter_groups()]
    assert names == ["0.encoder", "0.decoder", "0.heads", "1.encoder", "1.decoder", "1.heads"]
    assert {key.split(".")[1] for key in method.state_dict() if key.startswith("heads.")} == {"edge", "projection"}
    assert not any("heads" in key for key in method.ensemble().state_dict())
    first, second = (head.layers[0].weight for head in method.heads_of("projection"))
    assert not torch.equal(first, second)


def test_heads_are_drawn_from_the_seed_and_nothing_else_is() -> None:
    config = tiny_config(method={"name": "epl", "contrastive_weight": 1.0})
    torch.manual_seed(0)
    one = make_method(config)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)  # the caller's random state is untouched
    two, other = make_method(config), make_method(config.model_copy(update={"seed": 1}))
    weights = [m.heads_of("projection")[0].layers[0].weight for m in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    ours = dict(one.named_parameters())
    assert all(torch.equal(ours[key], value) for key, value in build("epl").named_parameters())


def test_one_forward_a_network_a_step_with_every_term_on() -> None:
    method = contrastive("dual_level", boundary=ALL)
    calls: list[int] = []
    for network in method.networks:
        network.register_forward_hook(lambda m, inputs, out: calls.append(len(inputs[0])))
    losses_of(method, batch_of())
    assert calls == [6, 6]


def test_anchors_are_a_function_of_the_progress() -> None:
    method, batch = contrastive(contrastive={"anchors": 4}), batch_of()
    a, b, c = (losses_of(method, batch, Progress(8, 10, seed))["contrastive"].item() for seed in (3, 3, 4))
    assert a == b
    assert a != c


class Recorder:
    """Keeps what the choice of anchors was given and gave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.original = module.choose_anchors
        monkeypatch.setattr(module, "choose_anchors", self)

    def __call__(self, labels: Tensor, band: Tensor, *rest: Any) -> Anchors:
        self.labels, self.band = labels, band
        self.anchors = self.original(labels, band, *rest)
        return self.anchors


def test_anchors_come_from_labels_and_from_what_both_networks_are_sure_of(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, batch = Recorder(monkeypatch), batch_of()
    method = contrastive("epl", strong={"cutmix": 0})
    assert method.teachers is not None
    labelled = method.teachers[0](batch.labelled)
    best = [torch.softmax(t(batch.unlabelled).logits, 1).max(1) for t in method.teachers]
    agree, lower = best[0].indices == best[1].indices, torch.minimum(best[0].values, best[1].values)
    for confidence in (float(lower[agree].median()), 0.999):
        losses_of(contrastive("epl", strong={"cutmix": 0}, contrastive={"confidence": confidence}), batch)
        label = best[0].indices.where(agree & (lower > confidence), IGNORE_INDEX)
        assert torch.equal(recorder.labels[:2], labels_at_features(batch.masks, labelled.features))
        assert torch.equal(recorder.labels[2:], labels_at_features(label, labelled.features))
        assert recorder.band.shape == recorder.labels.shape
        assert (label != IGNORE_INDEX).any() == (confidence < 0.9)
    assert (recorder.anchors.image < 2).all()  # nobody is that sure


def test_an_anchor_is_compared_with_the_other_network_in_the_other_view(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, given = Recorder(monkeypatch), []
    monkeypatch.setattr(module, "contrastive_loss", lambda a, b, *rest: given.append((a, b)) or a[0].sum())
    method, batch = contrastive(), batch_of()
    features: list[Tensor] = []
    for network in method.networks:
        network.register_forward_hook(lambda m, inputs, out: features.append(out.features))
    losses_of(method, batch)
    image, row, column, _ = recorder.anchors
    assert (image >= 2).any()
    for k, head in enumerate(method.heads_of("projection")):
        whole = head(features[k].permute(0, 2, 3, 1))  # images: two labelled, two of X, two of Z
        weak = whole[image, row, column]
        strong = whole[torch.where(image < 2, image, image + 2), row, column]
        torch.testing.assert_close(given[0][k][0], weak)
        torch.testing.assert_close(given[0][k][1], strong)


@pytest.mark.parametrize(
    "changed", [{"anchors": 5}, {"temperature": 0.5}, {"confidence": 0.999}, {"boundary_share": 1.0, "anchors": 5}]
)
def test_every_key_of_the_section_changes_the_term(changed: dict[str, float]) -> None:
    base = {"anchors": 5} if "boundary_share" in changed else {}
    a = losses_of(contrastive(contrastive=base), batch_of())["contrastive"]
    b = losses_of(contrastive(contrastive=changed), batch_of())["contrastive"]
    assert a.item() != b.item()


@pytest.mark.parametrize("value", [0, 1, IGNORE_INDEX])
def test_one_image_of_one_class_is_finite(value: int) -> None:
    """B = 1; nothing labelled but one class, and no pixel of the unlabelled image sure enough: no negatives."""
    method = contrastive("dual_level", boundary=ALL, contrastive={"confidence": 0.9999})
    batch = batch_of(images=1)
    batch = Batch(batch.labelled, torch.full_like(batch.masks, value), batch.unlabelled, *([torch.zeros(1).long()] * 2))
    terms = losses_of(method, batch)
    assert terms["contrastive"].item() == 0
    torch.stack(list(terms.values())).sum().backward()
    assert all(torch.isfinite(t) for t in terms.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters() if p.requires_grad)


def test_contrast_waits_for_the_ramp() -> None:
    method = contrastive(ramp={"warmup": 0.5, "end": 0.6})
    assert "contrastive" not in losses_of(method, batch_of(), Progress(4, 10))
    assert "contrastive" in losses_of(method, batch_of(), Progress(8, 10))


def test_training_the_term_brings_the_networks_together() -> None:
    method, batch = contrastive(), batch_of()
    optimiser = torch.optim.Adam(method.heads.parameters(), 1e-3)
    values = []
    for _ in range(10):
        loss = losses_of(method, batch)["contrastive"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < values[0]
