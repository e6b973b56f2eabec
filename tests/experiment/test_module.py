"""The optimiser of the training module."""

from __future__ import annotations

import pytest

import semidg.methods
from semidg.experiment.module import MethodModule
from semidg.methods import make_method
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
