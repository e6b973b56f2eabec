"""Lightning as we use it: one epoch of so many steps, no files of its own, and quiet."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from typing import cast

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from semidg.config import ExperimentConfig, TrainerConfig
from semidg.experiment.distributed import Place, strategy
from semidg.methods.base import Method
from semidg.networks.compilation import compile_networks, uncompiled
from semidg.networks.factory import SegmentationNetwork, has_idle_parameters
from semidg.networks.recompute import recompute_blocks


def ready(method: Method, config: TrainerConfig) -> Method:
    """The method as the trainer computes it: memory format, compiled networks, activation checkpointing."""
    if config.channels_last:
        method = method.to(memory_format=torch.channels_last)
    if config.compile:
        compile_networks([*method.networks, *(method.teachers or ())])
    if config.activation_checkpointing:
        for network in method.networks:
            recompute_blocks(cast(SegmentationNetwork, network))
    return method


def make_trainer(
    config: ExperimentConfig,
    place: Place,
    method: Method,
    device: torch.device,
    precision: str,
    callback: L.Callback,
    steps: int,
) -> L.Trainer:
    """The trainer of the next ``steps`` steps; ``precision`` is Lightning's name of it."""
    return L.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=config.trainer.devices,
        num_nodes=config.trainer.nodes,
        strategy=strategy(place, find_unused=place.world > 1 and _idles(config.trainer, method)),
        plugins=[LightningEnvironment()] if place.world == 1 else None,  # not SLURM, which comes with checkpoints
        default_root_dir=os.devnull,  # a checkpoint of something else that lies in the working folder would be loaded
        precision=precision,  # type: ignore[arg-type]
        max_epochs=1,
        max_steps=steps,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _idles(config: TrainerConfig, method: Method) -> bool:
    """Whether a step may leave a parameter without a gradient: a head in the warm-up, or a layer of the encoder that is
    not on the way to the decoder."""
    network = cast(SegmentationNetwork, method.networks[0])
    with uncompiled(config.compile):
        return len(method.heads) > 0 or has_idle_parameters(network)


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """The handlers of SIGTERM and Ctrl-C are afterwards what they were."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    old = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            for number, handler in zip(numbers, old, strict=True):
                signal.signal(number, handler)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lightning without its banners; warnings of its own that do not concern a user of ours."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")  # of 1 x 1 kernels
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
