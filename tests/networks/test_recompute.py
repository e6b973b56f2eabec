"""Activation checkpointing changes memory and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from semidg.config import NetworkConfig
from semidg.errors import ConfigError
from semidg.networks.factory import SegmentationNetwork, make_network
from semidg.networks.recompute import recompute_blocks


def both(encoder: str, architecture: str = "deeplabv3plus") -> tuple[SegmentationNetwork, SegmentationNetwork]:
    """A network in train mode, and a copy of it that recomputes."""
    config = NetworkConfig.model_validate({"encoder": encoder, "architecture": architecture, "weights": "none"})
    plain = make_network(config, 1, 0).train()
    recomputing = copy.deepcopy(plain)
    recompute_blocks(recomputing)
    return plain, recomputing


def learn(network: SegmentationNetwork, images: Tensor) -> tuple[Tensor, int]:
    """The loss of a forward and backward, and the bytes kept between them: for autograd and as inputs of blocks."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def inputs(module: nn.Module, given: tuple[object, ...]) -> None:
        for value in given:
            for tensor in value if isinstance(value, list) else [value]:
                if isinstance(tensor, Tensor):
                    note(tensor)

    hooks = [
        m.register_forward_pre_hook(inputs) for m in network.modules() if type(m).__name__.startswith("Recomputed")
    ]
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = network(images)
    for hook in hooks:
        hook.remove()
    loss = output.logits.square().mean() + output.features.mean()
    loss.backward()
    return loss.detach(), sum(kept.values())


@pytest.mark.parametrize(
    ("encoder", "architecture"),
    [
        ("tu-mobilenetv3_small_050", "deeplabv3plus"),  # dropout in the decoder, our own convolutions
        ("resnet18", "fpn"),
        ("mit_b0", "unet"),  # stochastic depth in the encoder
        ("densenet121", "unet"),  # its blocks take a list that grows afterwards
    ],
)
def test_losses_gradients_statistics_and_random_state_are_the_same(encoder: str, architecture: str) -> None:
    plain, recomputing = both(encoder, architecture)
    assert list(plain.state_dict()) == list(recomputing.state_dict())
    images = torch.rand(2, 1, 32, 32).contiguous(memory_format=torch.channels_last)
    for _ in range(2):  # the second forward starts from the statistics of the first
        (one, all_of_it), drawn = learn(plain, images), torch.rand(3)
        (two, less), again = learn(recomputing, images), torch.rand(3)
        assert torch.equal(one, two)
        assert less < 0.7 * all_of_it
        assert torch.equal(drawn, again)
        for name, parameter in plain.named_parameters():
            other = recomputing.get_parameter(name).grad
            assert (parameter.grad is None) == (other is None)
            assert parameter.grad is None or torch.equal(parameter.grad, other), name  # type: ignore[arg-type]
        for name, buffer in plain.named_buffers():
            assert torch.equal(buffer, recomputing.get_buffer(name)), name


def test_without_a_gradient_nothing_is_computed_twice() -> None:
    _, recomputing = both("resnet18")
    calls = count_calls(recomputing.encoder)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        recomputing(images)
    once = calls()
    output = recomputing(images).logits
    assert calls() == 2 * once
    output.mean().backward()
    assert calls() > 2 * once  # so the count does see the second computation
    recomputing.eval()
    before = calls()
    recomputing(images).logits.mean().backward()
    assert calls() == before + once


def count_calls(module: nn.Module) -> Callable[[], int]:
    """How often convolutions of a module have been called."""
    seen: list[int] = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda *_: seen.append(1))
    return lambda: len(seen)


def test_an_encoder_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"VGGEncoder.*without blocks.*resnet50"):
        both("vgg11_bn", "unet")
