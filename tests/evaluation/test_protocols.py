"""Protocols: which one a split means, and how the published one scores."""

from __future__ import annotations

import numpy as np
import pytest

from semidg.config_file import parse_config
from semidg.data_config import SplitConfig
from semidg.errors import ConfigError
from semidg.evaluation.protocols import PROTOCOLS, protocol_of, published_truth, target_of


def test_each_split_has_its_protocol() -> None:
    assert protocol_of(SplitConfig(), {}).name == "grouped"
    assert protocol_of(SplitConfig(protocol="random"), {}).name == "random"
    assert protocol_of(SplitConfig(target="delta"), {}).name == "leave_one_domain_out"
    assert protocol_of(SplitConfig(target="delta", protocol="random"), {}).name == "leave_one_domain_out"
    assert protocol_of(SplitConfig(protocol="published"), {}).selection == "test"


def test_what_flatters_is_marked() -> None:
    marked = {name for name, protocol in PROTOCOLS.items() if protocol.mark}
    assert marked == {"random", "published", "oracle"}
    chosen_on_test = {name for name, protocol in PROTOCOLS.items() if protocol.selection == "test"}
    assert chosen_on_test == {"published"}


@pytest.mark.parametrize(("section", "said"), [({"split": {"target": "delta"}}, "target"), ({}, "two classes")])
def test_published_refuses_what_it_does_not_know(section: dict[str, dict[str, str]], said: str) -> None:
    split = section.get("split", {}) | {"protocol": "published"}
    values = {"data": {"split": split}, "network": {"classes": 2 if section else 3}}
    with pytest.raises(ConfigError, match=said):
        parse_config(values, "test")


def test_published_masks_grow_and_empty_or_full_ones_do_not() -> None:
    rows, columns = np.mgrid[:500, :600]
    disc = (((rows - 250) ** 2 + (columns - 300) ** 2) < 60**2).astype(np.uint8)
    small = published_truth(disc, 128)
    assert small.shape == (128, 128)
    assert set(np.unique(small)) == {0, 1}
    assert 1.02 < small.mean() / disc.mean() < 1.12
    assert published_truth(np.zeros((50, 60), np.uint8), 32).sum() == 0
    assert published_truth(np.ones((50, 60), np.uint8), 32).mean() == 1


def test_what_lists_say_of_themselves_counts() -> None:
    lists = SplitConfig()
    assert protocol_of(lists, {"protocol": "random"}).mark
    assert protocol_of(lists, {"protocol": "published"}).name == "random"
    assert protocol_of(lists, {"protocol": "grouped"}).name == "grouped"
    held_out = {"protocol": "grouped", "target": "b", "oracle": False}
    assert protocol_of(lists, held_out).name == "leave_one_domain_out"
    assert target_of(lists, held_out) == "b"
    assert protocol_of(lists, held_out | {"oracle": True}).name == "oracle"
    assert protocol_of(SplitConfig(protocol="published"), {"protocol": "published"}).name == "published"
