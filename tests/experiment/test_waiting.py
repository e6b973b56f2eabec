"""No step waits for its device: nothing looks at a value that is computed there, and no copy blocks.

A GPU is imitated: ``FakeTensorMode`` has tensors of any device, of which there are shapes alone. What asks for a value
raises an error, and what moves a tensor from one device to another is seen.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import semidg.methods
from semidg.config import LabelledViewConfig
from semidg.experiment.distributed import Place
from semidg.experiment.engine import make_trainer, quiet
from semidg.experiment.loaders import training_loader
from semidg.experiment.module import MethodModule
from semidg.experiment.prepare import prepare
from semidg.methods import METHODS, make_method
from semidg.methods.base import strong_labelled
from semidg.types import Batch, Progress
from small_networks import small_pair
from tests_support import tiny_config

LATE = Progress(8, 10, 3)


class Copies(TorchDispatchMode):
    """Notes copies between devices that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0
        self.waiting: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name
        if name in ("aten::_to_copy", "aten::copy_"):
            source, target = (args[0], result) if name == "aten::_to_copy" else (args[1], args[0])
            if source.device != target.device:
                self.moved += 1
                if target.device.type == "cpu" or not (kwargs.get("non_blocking") or args[2:] == (True,)):
                    self.waiting.append(f"{name} {tuple(source.shape)} {source.device} to {target.device}")
        return result


def on_a_gpu(network: torch.nn.Module, mode: FakeTensorMode) -> None:
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = mode.from_tensor(parameter.detach()).to("cuda")
                module._parameters[name] = torch.nn.Parameter(moved, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = mode.from_tensor(buffer).to("cuda")


def batch() -> Batch:
    return Batch(
        labelled=torch.rand(2, 1, 32, 32),
        masks=torch.randint(0, 2, (2, 32, 32)),
        unlabelled=torch.rand(2, 1, 32, 32),
        labelled_domains=torch.tensor([0, 1]),
        unlabelled_domains=torch.tensor([1, 2]),
    )


@pytest.mark.parametrize(
    "case",
    [
        *({"name": name} for name in METHODS if name != "bcp"),
        {"name": "bcp", "largest_component": False},
        {"name": "epl", "confidence": "scalar", "teacher": 0},
        {"name": "cps", "teacher": 0},
        {"name": "dual_level", "view_dice": 0.5, "boundary": {"edge_weight": 0.5}},
        {"name": "crosslight", "paste_view": "strong"},
    ],
    ids=str,
)
def test_losses_and_teachers_wait_for_nothing(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and the moving averages, as on a GPU; the imitation has no gradients."""
    monkeypatch.setattr(semidg.methods, "make_pair", small_pair)
    config = tiny_config(method=case)
    method = make_method(config).train()
    module = MethodModule(method, config)
    # what is made once, in the first step, may look at values: here the copies with their BatchNorms folded
    averages = [method.average(k) for k in range(len(method.teachers or ()))]
    mode, copies = FakeTensorMode(allow_non_fake_inputs=True), Copies()
    with mode, torch.no_grad():
        for network in (method, *(average.network for average in averages)):
            on_a_gpu(network, mode)
        with copies:
            moved = module.transfer_batch_to_device(batch(), torch.device("cuda"), 0)
            moved = strong_labelled(moved, LabelledViewConfig(probability=0.5), LATE.generator())
            terms = method(moved, LATE)
            method.after_step(LATE)
        assert {term.device.type for term in terms.values()} == {"cuda"}
    assert copies.moved >= 3  # of images and masks at least
    assert copies.waiting == []


def test_the_imitation_sees_what_waits() -> None:
    mode, copies = FakeTensorMode(allow_non_fake_inputs=True), Copies()
    with mode, torch.no_grad(), copies:
        values = torch.rand(3).to("cuda")
        values.cpu()
        with pytest.raises(Exception, match="_local_scalar_dense"):
            values.sum().item()
        with pytest.raises(Exception, match="nonzero"):
            torch.nonzero(values)
    assert len(copies.waiting) == 2
    with Looks() as looks:
        torch.nn.functional.one_hot(torch.tensor([0, 1]), 2)  # looks at its labels, to refuse negative ones
        assert not torch.equal(torch.ones(2), torch.zeros(2))
    assert set(looks.seen) == {"aten::_local_scalar_dense", "aten::equal"}


class Looks(TorchDispatchMode):
    """Counts looks at a value."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::equal"):
            self.seen[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


class Counting(L.Callback):
    """Looks of each step, gradient, clipping and optimiser included."""

    def __init__(self) -> None:
        self.mode = Looks()
        self.steps: list[dict[str, int]] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.mode = Looks()
        self.mode.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        self.mode.__exit__(None, None, None)
        self.steps.append(dict(self.mode.seen))


@pytest.mark.parametrize("name", METHODS)
def test_a_whole_step_looks_at_no_value(name: str, phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semidg.methods, "make_pair", small_pair)
    config = tiny_config(phantom, method={"name": name})
    prepared, counting = prepare(config), Counting()
    method = make_method(config)
    module = MethodModule(method, config, 3)
    with quiet():
        trainer = make_trainer(config, Place(), method, torch.device("cpu"), "32-true", counting, 3)
        trainer.fit(module, training_loader(prepared.cache, prepared.split, config, 3))
    assert counting.steps == [{}] * 3
