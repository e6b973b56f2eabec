"""``torch.compile`` of the networks: fused kernels for what lies between the convolutions, after a slow first step."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from semidg.errors import ConfigError
from semidg.networks.factory import SegmentationNetwork

#: Compiled forms at once: of three parts of up to four networks, with and without gradient, for two sizes of a batch.
_FORMS = 64


def compile_networks(networks: Iterable[nn.Module], backend: str = "inductor") -> None:
    """Encoder, decoder and head are compiled at their first call, each for itself, as a method may change what passes
    between them. Parameters and their names stay as they are. Each size of a batch is compiled on its own: what a step
    computes must not depend on the sizes seen before, or a resumed run would differ."""
    torch._dynamo.config.recompile_limit = max(_FORMS, torch._dynamo.config.recompile_limit)
    for network in networks:
        assert isinstance(network, SegmentationNetwork)
        model = network.model
        for part in (model.encoder, model.decoder, model.segmentation_head):
            assert isinstance(part, nn.Module)
            part.compile(dynamic=False, backend=backend)


def is_compiled(network: nn.Module) -> bool:
    """Whether ``compile_networks`` compiled it; a copy of it is not."""
    return any(module._compiled_call_impl is not None for module in network.modules())


def uncompiled(compiled: bool) -> AbstractContextManager[object]:
    """Inside it networks compute as if they were not compiled: scoring has batches of other sizes, each of which would
    be compiled for a few uses. compiled: whether they are; else nothing is done, and no compiler imported."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    return stance


def check_compiler(device: torch.device) -> None:
    """Raises ConfigError where PyTorch cannot compile for a device (no C++ compiler on a CPU, no Triton on a GPU)."""
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"trainer.compile is for a CPU and CUDA, not for {device.type}; leave it out, or set trainer.accelerator"
        )
    try:
        torch.compile(_probe, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # of several libraries: the compiler, Triton, an unknown Python
        need = "a C++ compiler (g++ or clang++)" if device.type == "cpu" else "Triton and a C compiler"
        raise ConfigError(
            f"trainer.compile: PyTorch cannot compile here, it needs {need}; install it, or leave trainer.compile out "
            f"({_first_line(error)})"
        ) from error


def _probe(x: torch.Tensor) -> torch.Tensor:
    return (x + 1).sin() * x


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
