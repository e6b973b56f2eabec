"""The optimiser and the random state of the training module."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import semidg.methods
from semidg.experiment.module import MethodModule
from semidg.methods import make_method
from semidg.types import Batch
from small_networks import small_pair
from tests_support import tiny_config


@pytest.mark.parametrize(("precision", "fused"), [("32", True), ("bf16", True), ("fp16", False)])
def test_adamw_is_fused_where_the_gradients_are_not_scaled(
    precision: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semidg.methods, "make_pair", small_pair)
    config = tiny_config(trainer={"precision": precision})
    optimiser = MethodModule(make_method(config), config).configure_optimizers()
    assert optimiser.defaults["fused"] is fused


def test_each_network_is_clipped_by_its_own_norm_and_heads_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semidg.methods, "make_pair", small_pair)
    config = tiny_config(method={"name": "supervised", "boundary": {"edge_weight": 0.5}}, optimiser={"clip": 2.0})
    module = MethodModule(make_method(config), config)
    optimiser = module.configure_optimizers()
    for group in optimiser.param_groups:
        for p in group["params"]:
            p.grad = torch.full_like(p, 1e-6 if group["name"].startswith("1") else 1.0)
    module.configure_gradient_clipping(optimiser)

    def gradient(*names: str) -> torch.Tensor:
        groups = [g for g in optimiser.param_groups if g["name"] in names]
        return torch.cat([p.grad.flatten() for g in groups for p in g["params"]])

    assert float(gradient("0.encoder", "0.decoder").norm()) == pytest.approx(2.0, rel=1e-4)
    assert (gradient("0.heads") == 1).all()
    assert (gradient("1.encoder", "1.decoder", "1.heads") == 1e-6).all()


def test_the_encoder_learns_with_its_part_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semidg.methods, "make_pair", small_pair)
    config = tiny_config(
        method={"name": "supervised", "boundary": {"edge_weight": 0.5}},
        optimiser={"lr": 0.01, "encoder_lr_factor": 0.5},
    )
    module = MethodModule(make_method(config), config)
    encoders = {id(p) for network in module.method.networks for p in network.encoder.parameters()}
    rates = {False: set(), True: set()}
    for group in module.configure_optimizers().param_groups:
        for p in group["params"]:
            rates[id(p) in encoders] |= {group["lr"], group["base_lr"]}
    assert rates == {False: {0.01}, True: {0.005}}


def test_dropout_is_drawn_by_seed_step_and_rank_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semidg.methods, "make_pair", small_pair)
    g = torch.Generator().manual_seed(0)
    images, masks = torch.rand(2, 1, 32, 32, generator=g), torch.randint(0, 2, (2, 32, 32), generator=g)
    batch = Batch(images, masks, images[:0], torch.zeros(2).long(), torch.zeros(0).long())
    config = tiny_config(method={"name": "supervised"})
    method = make_method(config).train()

    def loss(seed: int = 0, step: int = 0, rank: int = 0) -> float:
        module = MethodModule(method, config.model_copy(update={"seed": seed}), step)
        monkeypatch.setattr(MethodModule, "trainer", SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[])]))
        monkeypatch.setattr(MethodModule, "global_rank", rank)
        return module.training_step(batch, 0).item()

    first, again = loss(), loss()
    assert first == again
    assert len({first, loss(seed=1), loss(step=1), loss(rank=1)}) == 4
