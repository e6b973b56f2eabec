"""The benchmark of waiting threads sets what it says it sets, and leaves no process behind."""

from __future__ import annotations

import os
import subprocess

import pytest
from benchmarks.waiting import SETTINGS, busy, environment, passes


def test_the_environment_is_that_of_a_user_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with environment(ours=False):
        assert not set(SETTINGS) & set(os.environ)
    with environment(ours=True):
        assert os.environ["GOMP_SPINCOUNT"] == "20000"
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_the_busy_process_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    make = subprocess.Popen
    monkeypatch.setattr(
        "benchmarks.waiting.subprocess.Popen", lambda *a, **k: started.append(make(*a, **k)) or started[0]
    )
    with busy(False):
        assert not started
    with busy(True):
        assert started[0].poll() is None
    assert started[0].poll() is not None


def test_passes_take_time() -> None:
    assert passes(1, 1) > 0
