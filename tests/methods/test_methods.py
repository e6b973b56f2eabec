"""The contract that every method keeps, and what tells EPL and dual-level apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from semidg.config import ExperimentConfig, LabelledViewConfig
from semidg.experiment.run import train
from semidg.methods import METHODS, make_method
from semidg.methods.base import Method, strong_labelled
from semidg.objectives.confidence import confidence_aware_loss, log_average, variance
from semidg.types import Batch, Progress
from tests_support import tiny_config


def config_of(method: dict[str, object]) -> ExperimentConfig:
    return tiny_config(method=method)


def batch_of(unlabelled: int = 2, size: int = 32, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return Batch(
        labelled=torch.rand(2, 1, size, size, generator=g),
        masks=torch.randint(0, 2, (2, size, size), generator=g),
        unlabelled=torch.rand(unlabelled, 1, size, size, generator=g),
        labelled_domains=torch.tensor([0, 1]),
        unlabelled_domains=torch.arange(unlabelled) % 2,
    )


LATE = Progress(8, 10, 3)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_contract(name: str) -> None:
    """Named finite scalars; gradients reach every trained parameter; groups hold each once; probabilities; teachers."""
    method = make_method(config_of({"name": name})).train()
    assert isinstance(method, METHODS[name])
    terms = method.losses(batch_of(), LATE)
    assert tuple(terms) == method.terms == tuple(n for n in METHODS[name].terms if n != "contrastive")
    assert all(t.dim() == 0 and torch.isfinite(t) for t in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    groups = method.parameter_groups()
    grouped = [p for g in groups for p in g["params"]]
    trained = [p for p in method.parameters() if p.requires_grad]
    assert {id(p) for p in grouped} == {id(p) for p in trained}
    assert len(grouped) == len(trained)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in grouped)
    probabilities = method.predict(torch.rand(3, 1, 32, 32))
    assert probabilities.shape == (3, 2, 32, 32)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3, 32, 32))
    assert method.training
    before = [p.clone() for t in method.teachers or [] for p in t.parameters()]
    with torch.no_grad():
        for p in grouped:
            p.add_(0.1)
    method.after_step(LATE)
    after = [p for t in method.teachers or [] for p in t.parameters()]
    assert before
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_one_image_of_each_kind_without_foreground_is_finite(name: str) -> None:
    method, batch = make_method(config_of({"name": name})).train(), batch_of(1)
    one = Batch(batch.labelled[:1], torch.zeros_like(batch.masks[:1]), batch.unlabelled, *[torch.zeros(1).long()] * 2)
    terms = method.losses(one, LATE)
    torch.stack(list(terms.values())).sum().backward()
    assert tuple(terms) == method.terms
    assert all(torch.isfinite(t) for t in terms.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_step_is_a_function_of_seed_and_step(name: str) -> None:
    results = []
    for _ in range(2):
        method = make_method(config_of({"name": name}))
        torch.manual_seed(0)
        results.append(method.losses(batch_of(), LATE))
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][k], results[1][k]) for k in results[0])


def test_one_forward_a_network_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make_method(config_of({"name": "dual_level"})).train()
    calls: list[int] = []
    for network in method.networks:
        network.register_forward_hook(lambda m, inputs, out: calls.append(len(inputs[0])))
    method.losses(batch_of(), LATE)
    assert calls == [6, 6]  # 2 labelled, 2 weak, 2 strong, once a network


def test_warm_up_is_supervised_only() -> None:
    method = make_method(config_of({"name": "dual_level", "ramp": {"warmup": 0.5, "end": 0.6}}))
    assert set(method.losses(batch_of(), Progress(4, 10))) == {"supervised"}
    assert set(method.losses(batch_of(), Progress(8, 10))) == {"supervised", "cacps", "view", "network"}


def test_weight_of_the_ramp_scales_the_unsupervised_terms() -> None:
    terms = []
    for maximum in (1.0, 3.0):
        ramp = {"warmup": 0.0, "end": 0.1, "maximum": maximum}
        method = make_method(config_of({"name": "dual_level", "ramp": ramp}))
        torch.manual_seed(0)
        terms.append(method.losses(batch_of(), LATE))
    for name in ("cacps", "view", "network"):
        torch.testing.assert_close(terms[1][name], 3 * terms[0][name])
    torch.testing.assert_close(terms[1]["supervised"], terms[0]["supervised"])


def test_switches_of_dual_level() -> None:
    off = {"name": "dual_level", "view_weight": 0, "network_weight": 0}
    torch.manual_seed(0)
    dual = make_method(config_of(off)).losses(batch_of(), LATE)
    torch.manual_seed(0)
    epl = make_method(config_of({"name": "epl"})).losses(batch_of(), LATE)
    assert set(dual) == {"supervised", "cacps"}
    assert all(torch.equal(dual[k], epl[k]) for k in dual)


def test_forms_of_the_confidence_differ() -> None:
    terms = []
    for form in ("pixel", "scalar", "none"):
        torch.manual_seed(0)
        method = make_method(config_of({"name": "epl", "confidence": form, "threshold": 0}))
        terms.append(method.losses(batch_of(), LATE)["cacps"].item())
    assert len(set(terms)) == 3


def test_published_epl_is_the_equations_on_the_two_views() -> None:
    """No teacher, no strong change, no threshold: labels from P_E of the networks themselves (equations 3 to 7)."""
    plain = {"photometric": 0, "cutmix": 0}
    config = config_of({"name": "epl", "teacher": 0, "threshold": 0, "strong": plain, "fourier": {"lam": 0}})
    config = config.model_copy(update={"network": config.network.model_copy(update={"dropout": 0.0})})
    method = make_method(config)
    assert method.teachers is None
    batch = batch_of()
    named = method.losses(batch, LATE)
    images = torch.cat([batch.labelled, batch.unlabelled, batch.unlabelled])  # lam = 0: both views are the image
    logs = [torch.log_softmax(n(images).logits, 1)[2:].chunk(2) for n in method.networks]
    expected = torch.zeros(())
    for teaching, taught in ((0, 1), (1, 0)):
        label = log_average(*logs[teaching]).argmax(1)
        expected = expected + confidence_aware_loss(log_average(*logs[taught]), label, variance(*logs[teaching]))
    torch.testing.assert_close(named["cacps"], expected, rtol=1e-3, atol=1e-4)


def test_pseudo_labels_carry_no_gradient_and_teachers_stay_in_eval_mode() -> None:
    method = make_method(config_of({"name": "dual_level"})).train()
    assert method.teachers is not None
    assert not any(m.training for t in method.teachers for m in t.modules())
    statistics = [b.clone() for t in method.teachers for b in t.buffers()]
    torch.stack(list(method.losses(batch_of(), LATE).values())).sum().backward()
    assert all(p.grad is None for t in method.teachers for p in t.parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(statistics, [b for t in method.teachers for b in t.buffers()], strict=True)
    )


def test_supervised_with_one_network() -> None:
    method = make_method(config_of({"name": "supervised", "networks": 1, "teacher": 0}))
    assert len(method.networks) == 1
    assert method.ensemble().predict_each(torch.rand(1, 1, 32, 32)).shape == (1, 1, 2, 32, 32)


def test_no_unlabelled_images_leave_the_supervised_term() -> None:
    method: Method = make_method(config_of({"name": "epl"}))
    assert set(method.losses(batch_of(unlabelled=0), LATE)) == {"supervised"}


def test_strong_view_of_labelled_images_is_drawn_one_by_one_and_keeps_masks_and_unlabelled() -> None:
    batch = batch_of(2)
    many = batch.map(lambda t: torch.cat([t] * 8) if len(t) == 2 else t)
    half = LabelledViewConfig(probability=0.5)
    first, again = (strong_labelled(many, half, replace(LATE, stream=1).generator()) for _ in range(2))
    assert torch.equal(first.labelled, again.labelled)
    changed = (first.labelled != many.labelled).flatten(1).any(1)
    assert 0 < int(changed.sum()) < len(changed)
    assert first.labelled.min() >= 0
    assert first.labelled.max() <= 1
    for name in ("masks", "unlabelled", "labelled_domains"):
        assert torch.equal(getattr(first, name), getattr(many, name))
    every = strong_labelled(many, LabelledViewConfig(probability=1.0), LATE.generator())
    assert (every.labelled != many.labelled).flatten(1).any(1).all()
    alone = replace(batch_of(0), labelled=batch.labelled[:1], masks=batch.masks[:1], labelled_domains=torch.tensor([0]))
    assert torch.isfinite(strong_labelled(alone, half, LATE.generator()).labelled).all()


def test_training_uses_the_strong_view_of_labelled_images(phantom: Path, tmp_path: Path) -> None:
    losses = []
    for probability in (0.0, 1.0):
        config = tiny_config(
            phantom, method={"name": "supervised", "networks": 1}, labelled_view={"probability": probability}
        )
        train(config, tmp_path / str(probability), score=None)
        losses.append(pd.read_csv(tmp_path / str(probability) / "metrics.csv")["supervised"][0])
    assert losses[0] != losses[1]


def test_averages_go_on_after_the_method_has_moved() -> None:
    method = make_method(config_of({"name": "supervised"}))
    method.after_step(LATE)
    method.double()  # other buffers, as on another device
    for tensor in (*method.networks.parameters(), *method.networks.buffers()):
        tensor.data.add_(1)
    assert method.teachers is not None
    before = {k: v.clone() for k, v in method.teachers.state_dict().items()}
    method.after_step(LATE)
    keep = min(method.decay, (1 + LATE.step) / (10 + LATE.step))
    for name, value in method.teachers.state_dict().items():
        now = method.networks.state_dict()[name]
        expected = keep * before[name] + (1 - keep) * now if value.is_floating_point() else now
        torch.testing.assert_close(value, expected)
