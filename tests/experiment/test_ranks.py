"""Two gloo processes compute the gradients of one with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import semidg.methods
from semidg.config import ExperimentConfig, LabelledViewConfig
from semidg.errors import ConfigError
from semidg.methods import METHODS, make_method
from semidg.methods.base import Method, strong_labelled
from semidg.networks.factory import SegmentationNetwork
from semidg.networks.norm import synchronise
from semidg.networks.recompute import recompute_blocks
from semidg.types import IGNORE_INDEX, Batch, Progress
from small_networks import small_pair
from tests_support import tiny_config

#: One rank: the gradients of its rows of the batch, averaged by DistributedDataParallel.
RANK = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from semidg import ranks
from test_ranks import CASES, Small, losses, make, part, whole

torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
results = {}
for name, case in CASES.items():
    method = make(case, synchronised=True)
    engine = DistributedDataParallel(Small(method), broadcast_buffers=False, find_unused_parameters=True)
    with ranks.together():
        terms = engine(case, part(whole(), rank))
    torch.stack(list(terms.values())).sum().backward()
    with ranks.together():
        total = ranks.mean(torch.stack([t.detach() for t in terms.values()]))
        ranks.average_(method.networks.buffers())
    results[name] = {
        "terms": dict(zip(terms, total.tolist(), strict=True)),
        "gradients": {n: p.grad for n, p in method.named_parameters() if p.grad is not None},
        "buffers": dict(method.networks.named_buffers()),
    }
if rank == 0:
    torch.save(results, f"{folder}/results.pt")
dist.barrier()
"""

LATE = Progress(8, 10, 3)
#: Method, and its strong view of labelled images.
CASES: dict[str, dict[str, Any]] = {name: {"name": name} for name in METHODS} | {
    "scalar": {"name": "epl", "confidence": "scalar", "threshold": 0.0},
    "boundary": {"name": "supervised", "boundary": {"edge_weight": 0.5, "distance_weight": 0.5}},
    "labelled_view": {"name": "supervised"},
    "own_labels": {"name": "dual_level", "teacher": 0},
    # a real encoder, in float64: a ReLU that turns by rounding is one of a few values of a channel
    "timm": {"name": "supervised", "teacher": 0.5},
    # the gradient is computed outside ``together``, and the blocks with BatchNorm over all ranks once more in it
    "recomputed": {"name": "supervised", "teacher": 0.4},
}
REAL = (CASES["timm"], CASES["recomputed"])


class Small(torch.nn.Module):
    """What the training module does in a step, as one forward."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, case: dict[str, Any], batch: Batch) -> dict[str, torch.Tensor]:
        return losses(self.method, case, batch)


def losses(method: Method, case: dict[str, Any], batch: Batch) -> dict[str, torch.Tensor]:
    if case in REAL:
        batch = batch.map(lambda t: t.double() if t.is_floating_point() else t)
    if case is CASES["labelled_view"]:
        batch = strong_labelled(batch, LabelledViewConfig(probability=0.5), LATE.generator())
    torch.manual_seed(0)
    return method(batch, LATE)


def make(case: dict[str, Any], synchronised: bool) -> Method:
    """The method without dropout, which draws by rank."""
    config: ExperimentConfig = tiny_config(method=case)
    if case not in REAL:
        semidg.methods.make_pair = small_pair
    try:
        method = make_method(config)
    finally:
        semidg.methods.make_pair = ORIGINAL
    for module in method.modules():
        if isinstance(module, (torch.nn.Dropout, torch.nn.Dropout2d)):
            module.p = 0.0
    if synchronised:
        synchronise(method)
    if synchronised and case is CASES["recomputed"]:
        for network in method.networks:
            recompute_blocks(cast(SegmentationNetwork, network))
    return method.double().train() if case in REAL else method.train()


ORIGINAL = semidg.methods.make_pair


def whole() -> Batch:
    """Eight labelled and eight unlabelled images; the ranks have unlike numbers of pixels without a label."""
    g = torch.Generator().manual_seed(5)
    masks = (torch.rand(8, 32, 32, generator=g) < 0.3).long()
    masks[0::2, :20] = IGNORE_INDEX
    return Batch(
        labelled=torch.rand(8, 1, 32, 32, generator=g),
        masks=masks,
        unlabelled=torch.rand(8, 1, 32, 32, generator=g),
        labelled_domains=torch.arange(8) % 3,
        unlabelled_domains=torch.arange(8) % 2,
    )


def part(batch: Batch, rank: int) -> Batch:
    return batch.map(lambda t: t[rank::2])


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    paths = [str(Path(__file__).parent), *(p for p in sys.path if p)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(folder)], env=environment) for rank in range(2)
    ]
    try:
        assert [child.wait(250) for child in children] == [0, 0]
    finally:
        for child in children:
            child.kill()
    results: dict[str, dict[str, Any]] = torch.load(folder / "results.pt", weights_only=True)
    return results


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_have_the_losses_gradients_and_statistics_of_one(of_two: dict[str, Any], name: str) -> None:
    """With BatchNorm over all ranks and without dropout: views, partners, labels and denominators are the same."""
    method, two = make(CASES[name], synchronised=False), of_two[name]
    terms = losses(method, CASES[name], whole())
    torch.stack(list(terms.values())).sum().backward()
    assert {n: pytest.approx(t.item(), abs=1e-5) for n, t in terms.items()} == two["terms"]
    gradients = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    assert gradients.keys() == two["gradients"].keys()
    assert max(g.abs().max().item() for g in gradients.values()) > 1e-3
    for key, gradient in gradients.items():
        torch.testing.assert_close(two["gradients"][key], gradient, rtol=1e-4, atol=1e-5)
    for key, buffer in method.networks.named_buffers():
        torch.testing.assert_close(two["buffers"][key], buffer, rtol=1e-4, atol=1e-5)


def test_a_batch_that_the_devices_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_labelled 3 is shared by .* = 2 .* multiple of it, 4 say"):
        tiny_config(trainer={"batch_labelled": 3, "devices": 2})
    with pytest.raises(ConfigError, match="batch_unlabelled 3"):
        tiny_config(trainer={"batch_unlabelled": 3, "nodes": 2})
    config = tiny_config(trainer={"batch_unlabelled": 3, "devices": 2}, method={"name": "supervised"})
    assert json.loads(config.model_dump_json())["trainer"]["devices"] == 2
