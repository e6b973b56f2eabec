"""Threads and processes stay within the CPUs that a process may use, whoever says how many these are."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semidg.cli.compare import CompareOptions, _executor
from semidg.config import TrainerConfig
from semidg.experiment import device
from semidg.experiment.device import (
    choose_precision,
    has_bf16,
    loader_workers,
    set_threads,
    share_of_cores,
    slow_precision,
    usable_cores,
)
from semidg.experiment.executors import LocalExecutor


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 CPUs; the threads of the tests are afterwards what they were."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name in ("OMP_NUM_THREADS", "SEMIDG_CPUS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device, "_quotas", _no_quota)


def _no_quota(_: Path) -> list[float]:
    return []


def system(folder: Path, groups: str, files: dict[str, str]) -> Path:
    """A machine whose control groups are these."""
    placed = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in placed.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


V1 = "cpu.cfs_quota_us", "cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),  # two threads would not fit into one and a half CPUs
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 16),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),  # of the group above
        ("0::/host/path\n", {"cpu.max": "200000 100000\n"}, 2),  # in a container the path is that of the host
        ("0::/../other\n", {"cpu.max": "200000 100000\n"}, 2),
        ("4:cpu,cpuacct:/job\n", {"cpu,cpuacct/job/" + V1[0]: "500000\n", "cpu,cpuacct/job/" + V1[1]: "100000\n"}, 5),
        ("4:cpu:/\n0::/\n", {"cpu/" + V1[0]: "-1\n", "cpu/" + V1[1]: "100000\n"}, 16),
        ("4:cpu:/\n0::/\n", {"cpu/" + V1[0]: "200000\n", "cpu/" + V1[1]: "100000\n"}, 2),
        ("4:cpuset:/x\n", {"cpuset/x/cpu.max": "100000 100000\n"}, 16),  # not the controller of the quota
        ("0::/\n", {"cpu.max": "100000 0\n"}, 16),
        ("0::/\n", {"cpu.max": "many\n"}, 16),
        ("rubbish\n:\n\n", {"cpu.max": "700000 100000\n"}, 7),
    ],
)
def test_the_quota_of_control_groups_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], cores: int
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.delenv("SEMIDG_CPUS", raising=False)
    assert usable_cores(system(tmp_path, groups, files)) == cores


def test_a_machine_without_control_groups_has_its_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores(tmp_path) == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)  # a cpuset
    assert usable_cores(tmp_path) == 2


@pytest.mark.parametrize(("text", "cores"), [("3", 3), ("64", 16), ("0", 16), ("", 16), ("some", 16), ("-2", 16)])
def test_whoever_starts_a_process_may_give_it_less(monkeypatch: pytest.MonkeyPatch, text: str, cores: int) -> None:
    monkeypatch.setenv("SEMIDG_CPUS", text)
    assert usable_cores() == cores


def threads_of(config: TrainerConfig) -> int:
    """The threads that a process of a training sets."""
    before = torch.get_num_threads()
    try:
        set_threads(config)
        return torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@given(st.integers(1, 16), st.integers(1, 4), st.integers(0, 4), st.one_of(st.none(), st.integers(1, 20)))
def test_jobs_devices_loaders_and_threads_together_stay_within_the_cpus(
    jobs: int, devices: int, workers: int, omp: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if omp is not None:
            patch.setenv("OMP_NUM_THREADS", str(omp))
        for name, value in share_of_cores(jobs).items():
            patch.setenv(name, value)
        config = TrainerConfig(devices=devices, workers=workers)
        threads = threads_of(config)
    least = jobs * devices * (1 + workers)  # what was asked for, with a thread each
    assert jobs * devices * (threads + workers) <= max(16, least)
    assert threads >= 1
    if omp is not None:
        assert threads <= omp
    elif least <= 16:
        assert threads == 16 // jobs // devices - workers


def test_configured_threads_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_of(TrainerConfig(threads=3)) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert threads_of(TrainerConfig()) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "all")
    assert threads_of(TrainerConfig()) == 16


def test_loaders_are_for_a_gpu_as_the_machine_has_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loader_workers(TrainerConfig(workers="auto")) == 0
    assert loader_workers(TrainerConfig(workers=3)) == 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loader_workers(TrainerConfig(workers="auto")) == 4
    assert loader_workers(TrainerConfig(workers="auto", accelerator="cpu")) == 0
    assert loader_workers(TrainerConfig(workers="auto", devices=8)) == 1
    assert loader_workers(TrainerConfig(workers="auto", devices=16)) == 0
    for devices in (1, 2, 3, 8, 16):
        config = TrainerConfig(workers="auto", devices=devices)
        assert devices * (threads_of(config) + loader_workers(config)) <= 16


def test_compare_divides_the_cpus_among_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    def environment(jobs: int | None) -> dict[str, str]:
        found = _executor(CompareOptions(jobs=jobs), None)
        assert isinstance(found, LocalExecutor)
        return found.environment

    assert environment(None) == {}
    assert environment(3) == {"SEMIDG_CPUS": "5", "OMP_NUM_THREADS": "5"}
    assert environment(40) == {"SEMIDG_CPUS": "1", "OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert environment(3) == {"SEMIDG_CPUS": "5"}


CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("can", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False}, False),
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"neon": True, "bf16": False}, False),
    ],
)
def test_bf16_of_a_processor_is_that_of_its_instructions(
    can: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    assert has_bf16(CPU) is expected
    warning = slow_precision("bf16", CPU)
    assert (warning is None) is expected
    assert expected or "no bf16 instructions" in str(warning)
    assert slow_precision("32", CPU) is None
    assert choose_precision("auto", CPU) == "32-true"
    assert choose_precision("bf16", CPU) == "bf16-mixed"  # slow, but what was asked for


def test_an_older_pytorch_cannot_say_what_a_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_bf16(CPU) is None
    assert slow_precision("bf16", CPU) is None


@pytest.mark.parametrize(("major", "precision"), [(7, "32-true"), (8, "bf16-mixed")])
def test_a_gpu_that_stands_in_for_bf16_is_not_given_it(
    major: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A T4 or V100 computes in bf16 by conversions, and PyTorch calls that supported."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    assert choose_precision("auto", CUDA) == precision
    assert (slow_precision("bf16", CUDA) is None) == (major == 8)
    assert choose_precision("fp16", CUDA) == "16-mixed"
