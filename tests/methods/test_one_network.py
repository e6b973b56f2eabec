"""mean_teacher, ua_mt, fixmatch, unimatch, bcp, cps and crosslight: each equation from the pieces it is made of."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semidg.augmentation.strong import apply_cutmix, sample_cutmix
from semidg.config import ExperimentConfig, LabelledViewConfig
from semidg.config_file import parse_config
from semidg.errors import ConfigError
from semidg.method_config import METHOD_CONFIGS, RampConfig
from semidg.methods import METHODS
from semidg.methods.base import Method, make_views, strong_labelled
from semidg.methods.bcp import sample_rectangles
from semidg.methods.recipe import RecipeMethod
from semidg.methods.ua_mt import UAMT, dropout_on
from semidg.methods.unimatch import ChannelDropout
from semidg.networks.factory import make_pair
from semidg.objectives.consistency import entropy, entropy_limit
from semidg.objectives.supervised import supervised_loss
from semidg.types import Batch, Progress
from tests_support import tiny_config

NAMES = [name for name, kind in METHODS.items() if issubclass(kind, RecipeMethod)]
LATE = Progress(8, 10, 3)


def config_of(name: str, dropout: float = 0.0, **keys: Any) -> ExperimentConfig:
    """Without network dropout, so that a second forward can be compared; thresholds that untrained networks pass."""
    keys = ({"threshold": 0.5} if name in ("fixmatch", "unimatch", "cps") else {}) | keys
    config = tiny_config(method={"name": name, **keys})
    return config.model_copy(update={"network": config.network.model_copy(update={"dropout": dropout})})


@cache
def networks_of(count: int, dropout: float) -> nn.ModuleList:
    return make_pair(config_of("cps", dropout).network, 1, 3, count)


def method_of(name: str, dropout: float = 0.0, **keys: Any) -> Any:
    """In train mode, with moving averages that differ from the networks."""
    kind: Any = METHODS[name]
    config = config_of(name, dropout, **keys).method
    networks = copy.deepcopy(networks_of(getattr(config, "networks", kind.count), dropout))
    method = kind(networks, config).train()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(9)
        for teacher in method.teachers or []:
            for p in teacher.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return method


def batch_of(labelled: int = 2, unlabelled: int = 2, size: int = 32) -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch(
        labelled=torch.rand(labelled, 1, size, size, generator=g),
        masks=torch.randint(0, 2, (labelled, size, size), generator=g),
        unlabelled=torch.rand(unlabelled, 1, size, size, generator=g),
        labelled_domains=torch.arange(labelled) % 2,
        unlabelled_domains=torch.arange(unlabelled) % 2,
    )


def terms_of(method: Method, batch: Batch, progress: Progress = LATE) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return method.losses(batch, progress)


def views_of(method: Any, batch: Batch, stream: int = 0) -> Any:
    c = method.config
    return make_views(batch, c.fourier, c.strong, replace(LATE, stream=stream).generator())


def softmax_of(network: nn.Module, images: Tensor) -> Tensor:
    """Of a copy in the mode the network has: the network itself keeps its statistics."""
    with torch.no_grad():
        return torch.softmax(copy.deepcopy(network)(images).logits, 1)


def entropy_of_labels(p: Tensor, q: Tensor, threshold: float) -> float:
    """mean over pixels of 1[max Q >= tau] CE(P, argmax Q), with a loop."""
    total, taught, teaching = 0.0, p.movedim(1, -1).flatten(0, 2).tolist(), q.movedim(1, -1).flatten(0, 2).tolist()
    for given, labelling in zip(taught, teaching, strict=True):
        if max(labelling) >= threshold:
            total -= math.log(given[labelling.index(max(labelling))])
    return total / len(taught)


def test_every_configuration_has_a_method_and_every_method_a_configuration() -> None:
    assert set(METHODS) == set(METHOD_CONFIGS)
    assert len(NAMES) == 7


def test_a_wrong_key_is_named_without_the_member_of_the_union() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown key 'method.treshold'; the nearest known key is 'method.threshold'"
    ):
        parse_config({"method": {"name": "fixmatch", "treshold": 0.5}}, "here")
    with pytest.raises(ConfigError, match=r"method.teacher: .*greater than 0"):
        parse_config({"method": {"name": "mean_teacher", "teacher": 0}}, "here")


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_is_supervised_only_and_w_scales_the_rest(name: str) -> None:
    batch, results, method = batch_of(), {}, method_of(name)
    for maximum in (1.0, 3.0):
        ramp = RampConfig(warmup=0.2, end=0.3, maximum=maximum)
        method.recipe = method.config.model_copy(update={"ramp": ramp})
        results[maximum] = terms_of(method, batch)
    assert set(terms_of(method, batch, Progress(1, 10))) == {"supervised"}
    for term, value in results[1.0].items():
        factor = 1 if term == "supervised" else 3
        torch.testing.assert_close(results[3.0][term], factor * value)
        assert value > 0


@pytest.mark.parametrize("name", NAMES)
def test_one_forward_a_network_a_step_and_teachers_keep_their_statistics(name: str) -> None:
    method = method_of(name)
    before = [b.clone() for t in method.teachers for b in t.buffers()]
    rows: list[int] = []
    for network in method.networks:
        network.register_forward_hook(lambda m, inputs, out: rows.append(len(inputs[0])))
    terms_of(method, batch_of(2, 3))
    assert rows == {"unimatch": [2 + 9], "bcp": [2 + 6], "cps": [5, 5], "crosslight": [5, 5]}.get(name, [5])
    after = [b for t in method.teachers for b in t.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(m.training for t in method.teachers for m in t.modules())


def test_mean_teacher_is_the_squared_distance_to_the_moving_average_cut_and_mixed_alike() -> None:
    method, batch = method_of("mean_teacher", strong={"cutmix": 1.0}), batch_of()
    views = views_of(method, batch)
    q = apply_cutmix(softmax_of(method.teachers[0], batch.unlabelled), views.cutmix)
    p = softmax_of(method.networks[0], torch.cat([batch.labelled, views.strong]))
    named = terms_of(method, batch)
    torch.testing.assert_close(named["consistency"], ((p[2:] - q) ** 2).sum(1).mean())
    torch.testing.assert_close(named["supervised"], supervised_loss(p[:2].log(), batch.masks))


def test_ua_mt_counts_the_certain_pixels_only() -> None:
    """Without dropout and noise the passes are equal, and u is the entropy of the moving average itself."""
    batch = batch_of()
    method = method_of("ua_mt", noise=0, threshold_start=0.97, strong={"cutmix": 1.0})
    views = views_of(method, batch)
    q = softmax_of(method.teachers[0], batch.unlabelled)
    limit = entropy_limit(LATE.fraction, 2, 0.97)
    p = softmax_of(method.networks[0], torch.cat([batch.labelled, views.strong]))[2:]
    mixed = apply_cutmix(q, views.cutmix)
    kept = [((p - mixed) ** 2)[b, :, y, x].sum() for b, y, x in torch.nonzero(entropy(mixed) < limit).tolist()]
    assert 0 < len(kept) < 2 * 32 * 32
    torch.testing.assert_close(terms_of(method, batch)["consistency"], torch.stack(kept).mean())


def test_ua_mt_passes_draw_dropout_and_noise_and_nothing_else() -> None:
    images, g = batch_of().unlabelled, torch.Generator
    for dropout, noise in ((0.5, 0.0), (0.0, 0.1)):
        method: UAMT = method_of("ua_mt", dropout, noise=noise, passes=3)
        buffers = [b.clone() for b in method.buffers()]
        torch.manual_seed(1)
        u = method.uncertainty(images, g().manual_seed(1))
        torch.manual_seed(2)
        assert u.shape == (2, 32, 32)
        assert not torch.equal(u, method.uncertainty(images, g().manual_seed(2)))
        assert all(torch.equal(a, b) for a, b in zip(buffers, method.buffers(), strict=True))
    assert method.teachers is not None
    teacher = method.teachers[0]
    with dropout_on(teacher):
        assert {type(m).__name__ for m in teacher.modules() if m.training} == {"Dropout"}
    assert not any(m.training for m in teacher.modules())


def test_ua_mt_entropy_is_that_of_the_mean_of_the_passes() -> None:
    method: UAMT = method_of("ua_mt", noise=0.1, passes=3)
    images = batch_of().unlabelled
    noise = torch.randn(6, 1, 32, 32, generator=torch.Generator().manual_seed(5)).clamp(-2, 2) * 0.1
    assert method.teachers is not None
    passes = [softmax_of(method.teachers[0], images + noise[2 * t : 2 * t + 2]) for t in range(3)]
    u = method.uncertainty(images, torch.Generator().manual_seed(5))
    torch.testing.assert_close(u, entropy(sum(passes[1:], passes[0]) / 3), rtol=1e-4, atol=1e-5)


def test_ua_mt_without_a_certain_pixel_is_zero_with_a_graph() -> None:
    method = method_of("ua_mt", threshold_start=0, ramp={"warmup": 0, "end": 0})
    named = terms_of(method, batch_of(), Progress(0, 10))  # H = exp(-5) log 2: no untrained network is that certain
    assert named["consistency"].item() == 0
    named["consistency"].backward()


@pytest.mark.parametrize("teacher", [0.0, 0.99])
def test_fixmatch(teacher: float) -> None:
    """teacher 0: the labels are those of the network itself in eval mode, and it stays in train mode."""
    method, batch = method_of("fixmatch", teacher=teacher), batch_of()
    labelling = method.teachers[0] if teacher else copy.deepcopy(method.networks[0]).eval()
    q = softmax_of(labelling, batch.unlabelled)
    threshold = q.max(1).values.median().item()
    method = method_of("fixmatch", teacher=teacher, threshold=threshold)
    views = views_of(method, batch)
    p = softmax_of(method.networks[0], torch.cat([batch.labelled, views.strong]))[2:]
    named = terms_of(method, batch)
    expected = entropy_of_labels(p, apply_cutmix(q, views.cutmix), threshold)
    assert 0 < expected < 0.9 * entropy_of_labels(p, q, 0)
    assert named["strong"].item() == pytest.approx(expected, rel=1e-2)  # a pixel at the threshold may fall either way
    assert method.networks[0].training


def test_fixmatch_with_two_networks_is_two_of_one_with_views_of_their_own() -> None:
    method, batch = method_of("fixmatch", networks=2, threshold=0.5), batch_of()
    expected = []
    for k, (teacher, network) in enumerate(zip(method.teachers, method.networks, strict=True)):
        views = views_of(method, batch, 8 * k)
        p = softmax_of(network, torch.cat([batch.labelled, views.strong]))[2:]
        q = softmax_of(teacher, batch.unlabelled)
        expected.append(entropy_of_labels(p, apply_cutmix(q, views.cutmix), 0.5))
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)
    terms = terms_of(method, batch)
    assert terms["strong"].item() == pytest.approx(sum(expected) / 2, rel=1e-2)
    torch.stack(list(terms.values())).sum().backward()
    alone = method_of("fixmatch", threshold=0.5)
    torch.stack(list(terms_of(alone, batch).values())).sum().backward()
    for half, whole in zip(method.networks[0].parameters(), alone.networks[0].parameters(), strict=True):
        torch.testing.assert_close(2 * half.grad, whole.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "off"), [("cps", {"cross_weight": 0}), ("unimatch", {"strong_weight": 0, "feature_weight": 0})]
)
def test_where_all_terms_are_off_nothing_is_computed_for_them(name: str, off: dict[str, float]) -> None:
    method, batch = method_of(name, **off), batch_of()
    rows: list[int] = []
    for network in [*method.networks, *method.teachers]:
        network.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    assert terms_of(method, batch).keys() == {"supervised"}
    assert rows == [2] * len(method.networks)


def test_labels_of_the_network_itself_leave_it_its_gradients_in_half_precision() -> None:
    """Where autocast caches a weight without a graph, the forward that learns must not get it."""
    method = method_of("fixmatch", teacher=0)
    with torch.autocast("cpu", torch.bfloat16):
        named = terms_of(method, batch_of())
    assert named["strong"].dtype == torch.float32
    torch.stack(list(named.values())).sum().backward()
    assert all(p.grad is not None for p in method.parameters())


def test_unimatch() -> None:
    method, batch = method_of("unimatch", strong_weight=0.7, feature_weight=0.2, threshold=0.55), batch_of()
    q = softmax_of(method.teachers[0], batch.unlabelled)
    first, second = views_of(method, batch), views_of(method, batch, 2)
    assert not torch.equal(first.strong, second.strong)
    images = torch.cat([batch.labelled, batch.unlabelled, first.strong, second.strong])
    drop = ChannelDropout(slice(2, 4), 0.5, replace(LATE, stream=3).generator())
    with torch.no_grad():
        p = torch.softmax(copy.deepcopy(method.networks[0])(images, drop).logits, 1)
    named = terms_of(method, batch)
    strong = [entropy_of_labels(p[4:6], apply_cutmix(q, first.cutmix), 0.55)]
    strong.append(entropy_of_labels(p[6:8], apply_cutmix(q, second.cutmix), 0.55))
    assert named["strong"].item() == pytest.approx(0.7 * sum(strong) / 2, rel=1e-4)
    assert named["feature"].item() == pytest.approx(0.2 * entropy_of_labels(p[2:4], q, 0.55), rel=1e-4)


def test_unimatch_leaves_out_what_is_off() -> None:
    batch = batch_of()
    assert set(terms_of(method_of("unimatch", strong_weight=0), batch)) == {"supervised", "feature"}
    assert set(terms_of(method_of("unimatch", strong_weight=0, feature_weight=0), batch)) == {"supervised"}
    method, rows = method_of("unimatch", feature_weight=0), []
    method.networks[0].register_forward_hook(lambda m, inputs, out: rows.append(len(inputs[0])))
    assert set(terms_of(method, batch)) == {"supervised", "strong"}
    assert rows == [2 + 4]


def test_channel_dropout_drops_whole_channels_of_its_rows() -> None:
    maps = [torch.ones(4, 3, 8, 8), torch.ones(4, 400, 4, 4), torch.ones(4, 400, 2, 2)]
    out = ChannelDropout(slice(1, 3), 0.25, torch.Generator().manual_seed(0))(maps)
    assert torch.equal(out[0], maps[0])
    for m in out[1:]:
        assert torch.equal(m[[0, 3]], torch.ones_like(m[[0, 3]]))
        assert torch.equal(m, m[:, :, :1, :1].expand_as(m))
        values = m[1:3, :, 0, 0]
        assert values.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
        assert 0.2 < (values == 0).float().mean() < 0.3
    assert not torch.equal(out[1][1, :, 0, 0], out[1][2, :, 0, 0])
    assert not torch.equal(out[1][1, :, 0, 0], out[2][1, :, 0, 0])


@pytest.mark.parametrize(("labelled", "unlabelled", "largest"), [(2, 2, True), (1, 2, False), (3, 2, True)])
def test_bcp_pastes_both_ways_and_its_targets_follow(
    labelled: int, unlabelled: int, largest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images the network sees, pixel by pixel; the loss on targets mixed alike."""
    method = method_of("bcp", photometric=0, fourier={"lam": 0}, largest_component=largest)
    batch = batch_of(labelled, unlabelled)
    label = torch.zeros(unlabelled, 32, 32, dtype=torch.int64)
    label[:, 4:9, 4:9] = 1
    said = label.clone()
    said[:, 20, 20] = 1  # a second, smaller part
    label = label if largest else said
    log_q = torch.stack([1.0 - said, said.float()], 1).clamp(1e-3, 1 - 1e-3).log()
    monkeypatch.setattr(method, "teach", lambda images, network=0: log_q)
    seen: list[Tensor] = []
    method.networks[0].register_forward_hook(lambda m, inputs, out: seen.extend((inputs[0], out.logits.detach())))
    named = terms_of(method, batch)
    images, logits = seen[0][labelled:], seen[1][labelled:]
    inside = sample_rectangles(unlabelled, 32, 32, 2 / 3, replace(LATE, stream=2).generator())
    loss = 0.0
    for direction in (0, 1):
        targets, source = torch.zeros_like(label), torch.zeros_like(inside)
        expected = torch.zeros(unlabelled, 32, 32)
        for b, y, x in np.ndindex(unlabelled, 32, 32):
            row = (b + direction) % labelled
            source[b, y, x] = inside[b, y, x] == bool(direction)  # from a labelled image
            image, target = (
                (batch.labelled[row], batch.masks[row]) if source[b, y, x] else (batch.unlabelled[b], label[b])
            )
            expected[b, y, x], targets[b, y, x] = image[0, y, x], target[y, x]
        torch.testing.assert_close(images[direction * unlabelled :][:unlabelled, 0], expected, rtol=0, atol=1e-5)
        z = logits[direction * unlabelled :][:unlabelled]
        loss += supervised_loss(z, targets.where(source, 255)) + 0.5 * supervised_loss(z, targets.where(~source, 255))
    torch.testing.assert_close(named["copy_paste"], torch.as_tensor(loss / 2))


def test_rectangles_of_bcp() -> None:
    inside = sample_rectangles(50, 30, 20, 0.5, torch.Generator().manual_seed(0))
    assert inside.flatten(1).sum(1).eq(15 * 10).all()
    assert inside.any(2).sum(1).eq(15).all()
    tops = {int(m.any(1).nonzero()[0]) for m in inside}
    assert min(tops) >= 0
    assert max(tops) <= 15
    assert len(tops) > 5
    assert sample_rectangles(1, 1, 1, 0.5, torch.Generator()).all()


def test_cps_each_network_learns_from_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = method_of("cps", cross_weight=1.5, strong={"cutmix": 1.0}), batch_of()
    views = views_of(method, batch)
    images = torch.cat([batch.labelled, views.strong])
    p = [softmax_of(n, images)[2:] for n in method.networks]
    q = [apply_cutmix(softmax_of(t, batch.unlabelled), views.cutmix) for t in method.teachers]
    expected = 1.5 * (entropy_of_labels(p[0], q[1], 0) + entropy_of_labels(p[1], q[0], 0)) / 2
    assert terms_of(method, batch)["cross"].item() == pytest.approx(expected, rel=1e-4)
    wrong = 1.5 * (entropy_of_labels(p[0], q[0], 0) + entropy_of_labels(p[1], q[1], 0)) / 2
    assert expected != pytest.approx(wrong, rel=1e-3)


def soft_entropy_of_labels(p: Tensor, q: Tensor, threshold: float, hard: bool) -> float:
    """mean over pixels of 1[max Q >= tau] (-sum_c Q_c log P_c), Q one-hot where hard, with a loop."""
    total, taught, teaching = 0.0, p.movedim(1, -1).flatten(0, 2).tolist(), q.movedim(1, -1).flatten(0, 2).tolist()
    for given, labelling in zip(taught, teaching, strict=True):
        best = max(labelling)
        weights = [float(c == labelling.index(best)) for c in range(len(given))] if hard else labelling
        if best >= threshold:
            total -= sum(w * math.log(g) for w, g in zip(weights, given, strict=True))
    return total / len(taught)


@pytest.mark.parametrize("labels", ["mean", "cross"])
@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("target", ["soft", "hard"])
@pytest.mark.parametrize("views", ["own", "shared"])
def test_crosslight(labels: str, mirror: bool, target: str, views: str) -> None:
    keys = {"labels": labels, "mirror": mirror, "target": target, "views": views, "threshold": 0.52, "paste": 0.0}
    method, batch = method_of("crosslight", **keys), batch_of()
    said = []
    for teacher in method.teachers:
        q = softmax_of(teacher, batch.unlabelled)
        said.append((q + softmax_of(teacher, batch.unlabelled.flip(-1)).flip(-1)) / 2 if mirror else q)
    expected = []
    for k, network in enumerate(method.networks):
        view = views_of(method, batch, 8 if k and views == "own" else 0)
        p = softmax_of(network, torch.cat([batch.labelled, view.strong]))[2:]
        q = apply_cutmix((said[0] + said[1]) / 2 if labels == "mean" else said[1 - k], view.cutmix)
        expected.append(soft_entropy_of_labels(p, q, 0.52, target == "hard"))
    assert terms_of(method, batch)["strong"].item() == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_crosslight_with_one_network_learns_from_its_own_average() -> None:
    method, batch = method_of("crosslight", networks=1, paste=0.0), batch_of()
    view = views_of(method, batch)
    q = softmax_of(method.teachers[0], torch.cat([batch.unlabelled, batch.unlabelled.flip(-1)]))
    q = apply_cutmix((q[:2] + q[2:].flip(-1)) / 2, view.cutmix)
    p = softmax_of(method.networks[0], torch.cat([batch.labelled, view.strong]))[2:]
    expected = soft_entropy_of_labels(p, q, 0.0, False)
    assert terms_of(method, batch)["strong"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("target", "paste_view"), [("soft", "strong"), ("hard", "strong"), ("soft", "weak")])
def test_crosslight_pastes_rectangles_of_labelled_images_with_their_labels(target: str, paste_view: str) -> None:
    """Every view gets one; ignored pixels of the label teach nothing."""
    keys = {"paste": 1.0, "mirror": False, "target": target, "paste_view": paste_view}
    method, batch = method_of("crosslight", **keys), batch_of()
    batch.masks[:, ::3] = 255
    q = (softmax_of(method.teachers[0], batch.unlabelled) + softmax_of(method.teachers[1], batch.unlabelled)) / 2
    expected = []
    for k, network in enumerate(method.networks):
        view = views_of(method, batch, (0, 8)[k])
        generator = replace(LATE, stream=9 + k).generator()
        inside = sample_cutmix(2, 32, 32, 1.0, generator).inside
        rows = torch.randint(2, (2,), generator=generator).tolist()
        z, mixed = view.strong.clone(), apply_cutmix(q, view.cutmix)
        given = batch
        if paste_view == "strong":
            light = LabelledViewConfig(probability=1, fourier=method.config.fourier)
            given = strong_labelled(batch, light, replace(LATE, stream=11 + k).generator())
            assert not torch.equal(given.labelled, batch.labelled)
        total, teaching = 0.0, 0
        for i in range(2):
            z[i][:, inside[i]] = given.labelled[rows[i]][:, inside[i]]
        p = softmax_of(network, torch.cat([batch.labelled, z]))[2:]
        for i, y, x in np.ndindex(2, 32, 32):
            weights = mixed[i, :, y, x].tolist()
            if target == "hard":
                weights = [float(w == max(weights)) for w in weights]
            if inside[i, y, x]:
                label = int(batch.masks[rows[i], y, x])
                weights = [float(label == c) for c in range(2)]
                teaching += label != 255
            total -= sum(w * math.log(v) for w, v in zip(weights, p[i, :, y, x].tolist(), strict=True))
        assert 0 < teaching < int(inside.sum())
        expected.append(total / (2 * 32 * 32))
    assert terms_of(method, batch)["strong"].item() == pytest.approx(sum(expected) / 2, rel=1e-4)
