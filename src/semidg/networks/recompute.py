"""Activation checkpointing (Chen et al., arXiv 1604.06174): the blocks of a network keep their inputs alone for the
gradient and are computed a second time there. Less memory, more time, the same numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from semidg import ranks
from semidg.errors import ConfigError
from semidg.networks.factory import SegmentationNetwork


class _Recomputed(nn.Module):
    """Laid over the class of a block by ``recompute_blocks``."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the block computes."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*args, **kwargs)
        together = ranks.world() > 1  # the gradient is computed outside ``ranks.together``, on a GPU in another thread

        def contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
            return contextlib.nullcontext(), _again(self, together)

        args = tuple(list(a) if isinstance(a, list) else a for a in args)  # DenseNet lengthens the list it has given
        # the random state is kept and set again: dropout and stochastic depth draw the same
        return checkpoint(super().forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextlib.contextmanager
def _again(block: nn.Module, together: bool) -> Iterator[None]:
    """Meanwhile BatchNorm has copies of its running statistics: the second computation must not move them again."""
    kept = [(module, dict(module._buffers)) for module in block.modules() if module._buffers]
    for module, buffers in kept:
        module._buffers.update({name: None if b is None else b.clone() for name, b in buffers.items()})
    try:
        with ranks.together() if together else contextlib.nullcontext():
            yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)


def recompute_blocks(network: SegmentationNetwork) -> None:
    """Every block of the encoder and every part of the decoder is computed anew for its gradient; parameters, their
    names and what eval mode computes stay as they are. Raises ConfigError for an encoder without blocks."""
    found = _blocks(network.encoder)
    if not found:
        raise ConfigError(
            f"trainer.activation_checkpointing: the encoder {type(network.encoder).__name__} is a plain chain of "
            "layers, without blocks to compute anew; leave the key out, or choose another encoder, resnet50 say"
        )
    for block in (*found, *_parts(network.model.decoder)):  # type: ignore[arg-type]
        kind = type(block)
        block.__class__ = type(f"Recomputed{kind.__name__}", (_Recomputed, kind), {})


def _blocks(encoder: nn.Module, inside: bool = False) -> list[nn.Module]:
    """Elements of a list or chain that have layers of their own, the outermost ones: residual blocks, or stages."""
    found = []
    for child in encoder.children():
        if type(child) is nn.Sequential or isinstance(child, nn.ModuleList | nn.ModuleDict):
            found += _blocks(child, inside=True)
        elif inside and any(True for _ in child.children()):
            found.append(child)
        else:
            found += _blocks(child)
    return found


def _parts(decoder: nn.Module) -> list[nn.Module]:
    """The children of a decoder that have layers of their own; of a list, which is never called, its elements."""
    found = []
    for child in decoder.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            found += _parts(child)
        elif any(True for _ in child.children()):
            found.append(child)
    return found
