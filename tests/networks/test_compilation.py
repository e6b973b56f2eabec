"""Compiled networks compute the same, under the same names."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

import semidg.methods
from semidg.config import ExperimentConfig, NetworkConfig
from semidg.config_file import parse_config
from semidg.errors import ConfigError
from semidg.experiment import bundle
from semidg.experiment.run import train
from semidg.methods import make_method
from semidg.networks.compilation import check_compiler, compile_networks, uncompiled
from semidg.networks.factory import make_pair
from semidg.types import Batch, Progress
from small_networks import small_pair
from tests_support import tiny_config


def batch() -> Batch:
    g = torch.Generator().manual_seed(4)
    return Batch(
        labelled=torch.rand(2, 1, 32, 32, generator=g),
        masks=(torch.rand(2, 32, 32, generator=g) < 0.3).long(),
        unlabelled=torch.rand(2, 1, 32, 32, generator=g),
        labelled_domains=torch.tensor([0, 1]),
        unlabelled_domains=torch.tensor([1, 2]),
    )


def test_a_real_network_is_one_graph_a_part_shared_by_the_pair() -> None:
    """With our own convolutions and BatchNorm. What is captured is computed by PyTorch's own kernels here: a compiler
    for the whole of it would take minutes."""
    config = NetworkConfig(encoder="tu-test_efficientnet", weights="none", atrous_rates=(1, 2, 3), dropout=0)
    plain = make_pair(config, 1, 0).to(memory_format=torch.channels_last).train()
    compiled = copy.deepcopy(plain)
    names = list(compiled.state_dict())
    torch._dynamo.reset()
    counters.clear()
    compile_networks(compiled, "aot_eager")
    images = torch.rand(2, 1, 32, 32).contiguous(memory_format=torch.channels_last)
    for one, other in zip(plain, compiled, strict=True):
        losses = [network(images).logits.square().mean() for network in (one, other)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
        for loss in losses:
            loss.backward()
        for name, parameter in one.named_parameters():
            expected, found = parameter.grad, other.get_parameter(name).grad
            assert expected is not None
            assert found is not None
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * max(1, expected.abs().max().item()))
        for name, buffer in one.named_buffers():
            torch.testing.assert_close(other.get_buffer(name), buffer, rtol=1e-5, atol=1e-6)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 3  # encoder, decoder and head, once for both networks
    assert list(compiled.state_dict()) == names


@pytest.mark.parametrize("name", ["unimatch", "crosslight"])
def test_a_method_has_the_losses_and_gradients_of_plain_networks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """unimatch changes what passes from encoder to decoder; crosslight has four networks and several sizes."""
    monkeypatch.setattr(semidg.methods, "make_pair", small_pair)
    plain = make_method(tiny_config(method={"name": name})).train()
    for module in plain.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    compiled = copy.deepcopy(plain)
    torch._dynamo.reset()
    compile_networks([*compiled.networks, *(compiled.teachers or ())], "aot_eager")
    for late in (Progress(0, 10, 3), Progress(8, 10, 3)):
        terms = [method(batch(), late) for method in (plain, compiled)]
        for key, value in terms[0].items():
            torch.testing.assert_close(terms[1][key], value, rtol=1e-5, atol=1e-6)
        for found in terms:
            torch.stack(list(found.values())).sum().backward()
    for key, parameter in plain.named_parameters():
        torch.testing.assert_close(compiled.get_parameter(key).grad, parameter.grad, rtol=1e-4, atol=1e-6)


def compiled_config(phantom: Path) -> ExperimentConfig:
    values = tiny_config(phantom, method={"name": "epl", "ramp": {"warmup": 0.5, "end": 0.8}}).model_dump(mode="json")
    values["trainer"]["compile"] = True
    return parse_config(values, "tests")


def test_a_compiled_training_resumes_bit_for_bit_and_its_models_hold_the_plain_names(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real compiler. The run is cut where the unlabelled images begin: the sizes of a batch that the one has
    seen and the other has not must not matter."""
    for module in (semidg.methods, bundle):
        monkeypatch.setattr(module, "make_pair", small_pair)
    config = compiled_config(phantom)
    torch._dynamo.reset()
    train(config, tmp_path / "whole", score=None)

    class Cut:
        def begin(self, step: int, total: int) -> None: ...

        def row(self, row: dict[str, float]) -> None: ...

        def step(self, step: int) -> None:
            if step == 4:
                raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(config, tmp_path / "cut", score=None, listener=Cut())
    torch._dynamo.reset()
    train(config, tmp_path / "cut", score=None, resume=True)
    one, two = (load_file(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("whole", "cut"))
    assert not any("_orig_mod" in key for key in one)
    assert list(one) == list(two)
    assert all(torch.equal(one[key], two[key]) for key in one)
    state = torch.load(tmp_path / "whole" / "checkpoints" / "last.pt", weights_only=True)
    assert list(state["method"]) == list(make_method(config).state_dict())


def test_scoring_compiles_nothing() -> None:
    forms: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        forms.append(len(inputs[0]))
        return graph

    torch._dynamo.reset()
    double = torch.compile(lambda x: x * 2, backend=backend, dynamic=False)
    with uncompiled(True):
        assert double(torch.ones(3)).tolist() == [2, 2, 2]
    assert forms == []
    with uncompiled(False):
        double(torch.ones(4))
    assert forms == [4]


def test_what_cannot_be_compiled_is_said_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.compile is for a CPU and CUDA, not for mps"):
        check_compiler(torch.device("mps"))

    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ConfigError, match=r"a C\+\+ compiler \(g\+\+ or clang\+\+\); install it, .*\(No working C\+\+"):
        check_compiler(torch.device("cpu"))


def test_compiling_and_checkpointing_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="exclude each other; choose one"):
        tiny_config(trainer={"compile": True, "activation_checkpointing": True})
