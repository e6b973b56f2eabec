"""Runs of a comparison as tasks of a Ray cluster whose machines share the file system and the installation."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from semidg.errors import ConfigError
from semidg.experiment.device import CPUS
from semidg.experiment.executors import PROGRAM, Job, start_child, stop_child

_PAUSE = 0.2  # seconds between two looks at a child
_GRACE = 60.0  # seconds for a run to write its checkpoint
_PASSED = ("PYTHONPATH", "SEMIDG_CACHE")  # of the driver's environment; the rest is that of the machine of the run


def connect(cpus: int, gpus: float, address: str | None) -> tuple[Any, bool, int]:
    """The module ray, connected; whether this call has connected it; how many tasks of this size fit its machines.

    address: None is RAY_ADDRESS, or else this machine alone. Raises ConfigError where ray is not installed or cannot be
    reached, or no task fits.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--executor ray needs the extra cluster: pip install 'semidg[cluster]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    owns = not ray.is_initialized()
    if owns:
        try:
            ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
        except ConnectionError as error:
            raise ConfigError(f"no Ray cluster answers at {address or 'RAY_ADDRESS'}: {error}") from error
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = sum(
        int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else float("inf"))) for node in nodes
    )
    if fit < 1:
        if owns:
            ray.shutdown()
        raise ConfigError(
            f"no machine of the Ray cluster has {cpus} CPUs and {gpus:g} GPUs for a run; lower --cpus-per-run or "
            "--gpus-per-run"
        )
    return ray, owns, fit


class RayExecutor:
    """Each run is a child process of a task that asks for ``cpus`` and ``gpus``."""

    def __init__(
        self, slots: int | None = None, *, cpus: int = 1, gpus: float = 0.0, address: str | None = None
    ) -> None:
        """slots: runs at once, None for as many as fit. address: None is RAY_ADDRESS, or else this machine alone.

        Raises ConfigError where ray is not installed or cannot be reached, or no run fits its machines.
        """
        self.ray, self.owns, fit = connect(cpus, gpus, address)
        ray = self.ray
        self.slots = min(slots or fit, fit)
        self.environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
        self.environment |= {"OMP_NUM_THREADS": str(cpus), CPUS: str(cpus)}
        self.task = ray.remote(max_retries=0, num_cpus=cpus, num_gpus=gpus)(run_job)
        self.jobs: dict[str, tuple[Job, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.jobs:
                self.stop()
                references = [reference for _, reference in self.jobs.values()]
                self.ray.wait(references, num_returns=len(references), timeout=_GRACE)
        finally:
            self.stop(kill=True)
            self._leave()

    def start(self, job: Job) -> None:
        """Submit a job; the cluster begins it where there is room."""
        job = Job(job.name, tuple(job.arguments), job.log.absolute())
        self.jobs[job.name] = job, self.task.remote(job, self.environment, str(Path.cwd()), PROGRAM)

    def running(self) -> Sequence[str]:
        """Names of the jobs that have not ended."""
        return [*self.jobs]

    def ended(self, timeout: float) -> list[tuple[str, int]]:
        """(name, exit code) of jobs that ended since the last call; 143 for a stopped one."""
        if not self.jobs:
            return []
        names = {reference: name for name, (_, reference) in self.jobs.items()}
        ready, _ = self.ray.wait([*names], num_returns=1, timeout=timeout)
        found = []
        for reference in ready:
            job, _ = self.jobs.pop(names[reference])
            try:
                code = int(self.ray.get(reference))
            except self.ray.exceptions.TaskCancelledError:
                code = 128 + signal.SIGTERM
            except self.ray.exceptions.RayError as error:  # the machine or its worker is gone
                lost = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                with contextlib.suppress(OSError), job.log.open("a", encoding="utf-8") as log:
                    log.write(f"the Ray worker of this run ended: {lost}\n")
                code = 1
            found.append((job.name, code))
        return found

    def stop(self, *, kill: bool = False) -> None:
        """Ask the runs to write a checkpoint and end, or end their workers with them."""
        for _, reference in self.jobs.values():
            self.ray.cancel(reference, force=kill)

    def _leave(self) -> None:
        if self.owns:
            self.ray.shutdown()


def run_job(job: Job, environment: dict[str, str], folder: str, program: tuple[str, ...]) -> int:
    """The task: a child process in ``folder`` until it ends; a cancelled task lets it write its checkpoint first."""
    child = start_child(job, environment, program=program, folder=folder)
    try:
        while (code := child.poll()) is None:
            time.sleep(_PAUSE)
    except BaseException:  # cancelled: Ray raises KeyboardInterrupt here
        stop_child(child, kill=False)
        with contextlib.suppress(Exception):
            return child.wait(_GRACE)
        stop_child(child, kill=True)
        raise
    return code
