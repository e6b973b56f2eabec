"""Several processes that train together: which one this is, how they find each other, and who does what first."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from semidg.config import TrainerConfig
from semidg.errors import ConfigError, SemidgError

#: Set for the processes that ``launch`` starts: the file through which they find each other.
STORE = "SEMIDG_STORE"

#: Rank 0 may decode a data set or validate for long, and the others wait in an exchange meanwhile. That a process has
#: died is noticed by whoever started it.
_PATIENCE = timedelta(hours=6)

T = TypeVar("T")


class Abandoned(SystemExit):
    """Another rank has failed and says why; this one ends in silence, with exit code 2."""

    def __init__(self) -> None:
        super().__init__(2)


@dataclass(frozen=True)
class Place:
    """rank: 0 to world - 1, over all machines. local: on this machine. environment: of Lightning; None alone."""

    rank: int = 0
    local: int = 0
    world: int = 1
    environment: ClusterEnvironment | None = None

    @property
    def first(self) -> bool:
        """Whether it is rank 0: the one that writes."""
        return self.rank == 0


def find_place(config: TrainerConfig) -> Place | None:
    """The place of this process; None where the processes of a machine must still be started (``launch``).

    Raises ConfigError where torchrun or SLURM has started another number of processes than configured, and where
    several machines are configured and neither has.
    """
    world = config.devices * config.nodes
    if world > 1 and not dist.is_available():
        raise ConfigError("this PyTorch is built without torch.distributed; set trainer.devices and trainer.nodes to 1")
    if TorchElasticEnvironment.detect():
        _check("torchrun", int(os.environ["WORLD_SIZE"]), config)
        found: ClusterEnvironment = TorchElasticEnvironment()
        return Place(found.global_rank(), found.local_rank(), world, found) if world > 1 else Place()
    if world == 1:
        return Place()
    if STORE in os.environ:
        rank = int(os.environ["LOCAL_RANK"])
        return Place(rank, rank, world, LightningEnvironment())
    # of srun alone: in a job whose script calls the command without it, this process is the only one
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if SLURMEnvironment.detect() and tasks > 1:
        _check("srun", tasks, config)
        try:
            found = SLURMEnvironment(auto_requeue=False)  # which would write and read checkpoints of its own
        except RuntimeError as error:
            raise ConfigError(f"SLURM: {error}") from error
        return Place(found.global_rank(), found.local_rank(), world, found)
    if config.nodes > 1:
        raise ConfigError(
            f"trainer.nodes {config.nodes}: the command must be started on every machine, by srun or torchrun "
            "(docs/how-to/use-gpus.md)"
        )
    return None


def _check(starter: str, found: int, config: TrainerConfig) -> None:
    if found != config.devices * config.nodes:
        raise ConfigError(
            f"{starter} has started {found} processes, but trainer.devices {config.devices} x trainer.nodes "
            f"{config.nodes} is {config.devices * config.nodes}; the two must agree"
        )


def join(place: Place, device: torch.device) -> None:
    """Enter the process group of the run, gloo between CPUs and nccl between GPUs; nothing for a process alone."""
    if place.environment is None:
        return
    if device.type == "cuda":
        torch.cuda.set_device(place.local)
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # else Lightning sets the threads anew
    store = os.environ.get(STORE)
    if store is None:
        os.environ["MASTER_ADDR"] = place.environment.main_address
        os.environ["MASTER_PORT"] = str(place.environment.main_port)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method="env://" if store is None else f"file://{store}",
        rank=place.rank,
        world_size=place.world,
        timeout=_PATIENCE,
    )


def leave(place: Place) -> None:
    """Leave it, all together; not after an error of one rank, when the others may wait in an exchange."""
    if place.environment is not None:
        dist.barrier()
        dist.destroy_process_group()


def first_then_others(place: Place, work: Callable[[], T]) -> T:
    """``work`` on rank 0, then on all others; what fails on one ends all.

    Rank 0 raises its own error, or a SemidgError with that of the others; these raise Abandoned.
    """
    if place.world == 1:
        return work()
    result: T | None = None
    failure: Exception | None = None
    for turn in (True, False):
        if place.first == turn:
            try:
                result = work()
            except Exception as error:  # whatever it is, the others must hear of it
                failure = error
        found = _texts(place, failure)
        if any(found):
            leave(place)
        if failure is not None and place.first:
            raise failure
        if any(found):
            if not place.first:
                raise Abandoned from failure
            raise SemidgError("\n".join(text for text in dict.fromkeys(found) if text))
    return result  # type: ignore[return-value]


def _texts(place: Place, failure: Exception | None) -> list[str]:
    """What each rank has to say, on all of them."""
    own = "" if failure is None else f"rank {place.rank}: {failure or type(failure).__name__}"
    found: list[Any] = [None] * place.world
    dist.all_gather_object(found, own)
    return [str(text) for text in found]


def strategy(place: Place, find_unused: bool) -> DDPStrategy | str:
    """Lightning's distributed data parallel, or its own choice for a process alone.

    Buffers are not taken from rank 0 before each forward: ``MethodModule`` averages them after each step.
    """
    if place.world == 1:
        return "auto"
    return DDPStrategy(
        cluster_environment=place.environment, find_unused_parameters=find_unused, broadcast_buffers=False
    )


def largest(value: int) -> int:
    """The largest of the values of all ranks."""
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def of_all(value: T) -> list[T]:
    """The values of all ranks, in their order."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found
