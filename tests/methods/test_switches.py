"""Every key of every method changes what a step does, on networks that cost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast, get_args

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from semidg.config import NetworkConfig
from semidg.errors import ConfigError
from semidg.method_config import METHOD_CONFIGS
from semidg.methods import make_method
from semidg.types import Batch, Progress
from small_networks import small_pair
from tests_support import tiny_config

#: On the ramp, and late enough for the decay of the averages to be the configured one.
PROGRESS = Progress(1000, 4000, 3)
#: Keys that another key switches on, or that do nothing at 32 x 32: the values everything starts from.
BASE = {
    "fourier": {"window": 0.1},
    "strong": {"cutmix": 1.0},
    "contrastive_weight": 1.0,
    "contrastive": {"anchors": 16},
}
#: Where half the value may draw the same.
OTHER = {"strong.cutmix": 0.0}


def sharp_pair(config: NetworkConfig, channels: int, seed: int, count: int) -> nn.ModuleList:
    """Small networks that are confident here and there, in many parts."""
    networks = small_pair(config, channels, seed, count)
    with torch.no_grad():
        for network in networks:
            cast(Any, network).model.segmentation_head[0].weight.mul_(10)
    return networks


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semidg.methods.make_pair", sharp_pair)


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted keys of a configuration, without ``name``."""
    for key, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from leaves(info.annotation, f"{prefix}{key}.")
        elif key != "name":
            yield prefix + key


def another(model: Any, key: str) -> Any:
    """A value that the key has not in this configuration: another choice, the opposite, half of it, or 1 for 0."""
    if key in OTHER:
        return OTHER[key]
    *sections, last = key.split(".")
    for section in sections:
        model = getattr(model, section)
    value = getattr(model, last)
    choices = [c for c in get_args(type(model).model_fields[last].annotation) if c != value]
    if choices:
        return choices[0]
    return not value if isinstance(value, bool) else type(value)(value / 2) if value else 1.0


def changed(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return values | {first: changed(values.get(first, {}), rest, value) if rest else value}


def batch_of(images: int = 2, size: int = 32) -> Batch:
    g = torch.Generator().manual_seed(0)
    masks = torch.zeros(images, size, size, dtype=torch.long)
    masks[:, 6:20, 9:25] = 1
    return Batch(
        labelled=torch.rand(images, 1, size, size, generator=g),
        masks=masks,
        unlabelled=torch.rand(images, 1, size, size, generator=g),
        labelled_domains=torch.arange(images),
        unlabelled_domains=torch.arange(images),
    )


def step(values: dict[str, Any], progress: Progress = PROGRESS) -> dict[str, Tensor]:
    """The terms of a step, and what the method predicts after it: gradients and averages are in that."""
    method = make_method(tiny_config(method=values)).train()
    torch.manual_seed(0)  # dropout
    terms = method.losses(batch_of(), progress)
    torch.stack(list(terms.values())).sum().backward()
    with torch.no_grad():
        for p in method.parameters():
            if p.grad is not None:
                p.sub_(p.grad)
    method.after_step(progress)
    return {name: t.detach() for name, t in terms.items()} | {"predicted": method.predict(batch_of().unlabelled)}


def differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() != b.keys() or any(not torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", sorted(METHOD_CONFIGS))
def test_every_key_changes_something(name: str) -> None:
    kind = METHOD_CONFIGS[name]
    base = {"name": name} | {key: value for key, value in BASE.items() if key in kind.model_fields}
    before = step(base)
    assert not differ(step(base), before)
    silent = [key for key in leaves(kind) if not differ(step(changed(base, key, another(kind(**base), key))), before)]
    assert silent == []


@pytest.mark.parametrize("name", sorted(METHOD_CONFIGS))
def test_draws_depend_on_seed_and_step(name: str) -> None:
    """``supervised`` draws nothing of its own; w(t) = 1 and the decay are the same at all of these."""
    values = {"name": name} | ({} if name == "supervised" else {"ramp": {"warmup": 0.0, "end": 0.0}})
    first = step(values)
    for other in (Progress(1001, 4000, 3), Progress(1000, 4000, 4)):
        assert differ(step(values, other), first) == (name != "supervised")


#: Weights that leave a term out when they are 0.
TERMS = [
    ("epl", {"contrastive_weight": 1.0}, "contrastive"),
    ("dual_level", {"view_weight": 0.0}, "view"),
    ("dual_level", {"network_weight": 0.0}, "network"),
    ("unimatch", {"strong_weight": 0.0}, "strong"),
    ("unimatch", {"feature_weight": 0.0}, "feature"),
    ("cps", {"cross_weight": 0.0}, "cross"),
]


@pytest.mark.parametrize(("name", "weight", "term"), TERMS)
def test_a_term_is_listed_where_it_is_on(name: str, weight: dict[str, float], term: str) -> None:
    for values in ({"name": name}, {"name": name} | weight):
        listed = make_method(tiny_config(method=values)).terms
        assert set(listed) == set(step(values)) - {"predicted"}
        assert (term in listed) == ((values == {"name": name}) != (weight == {"contrastive_weight": 1.0}))


@pytest.mark.parametrize("name", sorted(set(METHOD_CONFIGS) - {"supervised"}))
def test_without_a_ramp_nothing_but_the_supervised_part_is_listed(name: str) -> None:
    values = {"name": name, "ramp": {"maximum": 0.0}, "boundary": {"edge_weight": 1.0}}
    assert make_method(tiny_config(method=values)).terms == ("supervised", "edge")
    assert set(step(values)) == {"supervised", "edge", "predicted"}


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"name": "crosslight", "networks": 1, "labels": "cross"}, r"method\.labels cross is between two networks"),
        ({"name": "crosslight", "networks": 1, "views": "shared"}, r"method\.views shared is of two networks"),
        ({"name": "crosslight", "paste": 0, "paste_view": "weak"}, r"method\.paste 0 switches off"),
        ({"name": "dual_level", "view_weight": 0, "view_dice": 0.5}, r"method\.view_dice 0\.5 is a part of the term"),
        ({"name": "epl", "ramp": {"warmup": 1.0}}, r"ramp\.warmup.*less than 1"),
    ],
)
def test_a_switch_that_could_do_nothing_is_refused(method: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_config(method=method)
