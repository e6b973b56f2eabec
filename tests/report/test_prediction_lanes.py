"""Lanes: order, bounds, threads, and what an error leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from semidg.report.prediction_lanes import Lanes

CPU = torch.device("cpu")


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    assert torch.get_num_threads() == before
    torch.set_num_threads(before)


def test_results_keep_the_order_and_few_items_are_taken_ahead(threads: int) -> None:
    taken: list[int] = []
    given: list[int] = []

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            assert len(taken) - len(given) <= 3 + 2
            yield number

    with Lanes(2, 40, CPU) as lanes:
        assert lanes.count == 3
        for result in lanes.in_order(lambda number: (time.sleep(0.001 * (number % 3)), number)[1], items()):
            given.append(result)
    assert given == list(range(40))


@pytest.mark.parametrize(
    ("wanted", "batches", "at_once", "each"), [(1, 9, 1, 1), (4, 9, 4, 1), (4, 2, 2, 2), (32, 99, 8, 4)]
)
def test_threads_are_shared_by_the_batches_in_the_networks(
    threads: int, wanted: int, batches: int, at_once: int, each: int
) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def work(_: int) -> int:
        nonlocal inside, most
        with lanes.networks():
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.002)
            with lock:
                inside -= 1
        return torch.get_num_threads()

    with Lanes(wanted, batches, CPU) as lanes:
        assert lanes.count == at_once + 1
        assert set(lanes.in_order(work, range(3 * at_once))) == {each}
    assert most <= at_once


def test_one_batch_is_in_the_networks_of_another_device(threads: int) -> None:
    lanes = Lanes(4, 9, torch.device("cuda"))
    with lanes, lanes.networks():
        assert lanes.count == 5
        assert not lanes._in_networks.acquire(blocking=False)


def test_after_an_error_the_begun_are_ended_and_the_others_dropped(threads: int) -> None:
    begun: list[int] = []
    ended: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise KeyboardInterrupt
        time.sleep(0.005)
        ended.append(number)

    with pytest.raises(KeyboardInterrupt), Lanes(2, 100, CPU) as lanes:
        for _ in lanes.in_order(work, range(100)):
            pass
    assert sorted(ended) == sorted(set(begun) - {3})
    assert len(begun) < 12
