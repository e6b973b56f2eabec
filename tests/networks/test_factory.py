"""Networks: shapes, initialisation, weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from semidg.config import NetworkConfig
from semidg.errors import ConfigError
from semidg.networks import weights
from semidg.networks.ema import MovingAverage, make_teacher
from semidg.networks.ensemble import Ensemble
from semidg.networks.factory import has_idle_parameters, make_network, make_pair

SMALL = NetworkConfig(encoder="tu-test_efficientnet", weights="none", atrous_rates=(1, 2, 3))
LITE = NetworkConfig(weights="package")


@pytest.mark.parametrize("architecture", ["deeplabv3plus", "unet", "fpn"])
@pytest.mark.parametrize(("channels", "size"), [(1, (64, 64)), (3, (50, 70))])
def test_logits_have_the_size_of_the_image(architecture: str, channels: int, size: tuple[int, int]) -> None:
    config = SMALL.model_copy(update={"architecture": architecture, "classes": 4})
    output = make_network(config, channels, 0).eval()(torch.rand(2, channels, *size))
    assert output.logits.shape == (2, 4, *size)
    assert output.features.shape[0] == 2


@pytest.mark.parametrize("architecture", ["deeplabv3plus", "unet", "fpn"])
def test_perturbed_maps_reach_the_decoder_of_their_rows_alone(architecture: str) -> None:
    network = make_network(SMALL.model_copy(update={"architecture": architecture}), 3, 0).eval()
    images, seen = torch.rand(2, 3, 64, 64), []

    def perturb(maps: list[torch.Tensor]) -> list[torch.Tensor]:
        seen.extend(m.shape[-1] for m in maps)
        return [maps[0], *(m * torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1) for m in maps[1:])]

    plain, same, changed = (network(images, p).logits for p in (None, lambda maps: maps, perturb))
    torch.testing.assert_close(same, plain)
    torch.testing.assert_close(changed[0], plain[0])
    assert not torch.allclose(changed[1], plain[1])
    assert seen == sorted(seen, reverse=True)
    other = network(torch.cat([images[:1], torch.rand(1, 3, 64, 64)]), perturb).logits
    torch.testing.assert_close(other[1], changed[1])  # the first map, the image itself, is read by no decoder


def test_a_pair_shares_nothing_and_differs_wherever_no_weights_are_loaded() -> None:
    first, second = make_pair(LITE, 3, 0)
    ours = dict(second.named_parameters())
    convolutions = [name for name, p in first.named_parameters() if p.dim() == 4]
    same = [name for name in convolutions if torch.equal(dict(first.named_parameters())[name], ours[name])]
    assert same
    assert all("encoder" in name for name in same)  # ImageNet weights, in both
    assert all("encoder" in name or name not in same for name in convolutions)
    pointers = {p.data_ptr() for p in first.parameters()}
    assert not pointers & {p.data_ptr() for p in second.parameters()}
    a, b = make_pair(SMALL, 3, 0)
    drawn = [n for n, p in a.named_parameters() if p.dim() == 4]
    assert not any(torch.equal(dict(a.named_parameters())[n], dict(b.named_parameters())[n]) for n in drawn)


def test_initialisation_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    a = make_network(SMALL, 3, 5).state_dict()
    torch.manual_seed(2)
    before = torch.rand(1)
    torch.manual_seed(2)
    b = make_network(SMALL, 3, 5).state_dict()
    assert torch.equal(torch.rand(1), before)  # the caller's random state is untouched
    assert all(torch.equal(a[k], b[k]) for k in a)
    c = make_network(SMALL, 3, 6).state_dict()
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_package_weights_are_those_of_the_file_in_order() -> None:
    encoder = make_network(LITE, 3, 0).encoder.state_dict()
    source = list(weights.package_weights().values())
    assert len(encoder) > 250
    assert all(torch.equal(a, b) for a, b in zip(encoder.values(), source, strict=False))


def test_grey_encoder_sums_the_first_convolution() -> None:
    colour, grey = (next(iter(make_network(LITE, c, 0).encoder.parameters())) for c in (3, 1))
    torch.testing.assert_close(grey, colour.sum(1, keepdim=True))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    source = make_network(SMALL, 3, 1)
    path = tmp_path / f"ünïcode weights{suffix}"
    state = {k: v.contiguous() for k, v in source.encoder.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = make_network(SMALL.model_copy(update={"weights": str(path)}), 3, 2)
    assert all(torch.equal(a, b) for a, b in zip(loaded.encoder.parameters(), source.encoder.parameters(), strict=True))


@pytest.mark.parametrize("names", ["same", "module.", "other"])
def test_weights_without_the_counters_of_batchnorm_fit(tmp_path: Path, names: str) -> None:
    """Older files have none; they are found by name, behind a prefix, and by order."""
    source = make_network(SMALL, 3, 1).encoder.state_dict()
    state = {k: v for k, v in source.items() if not k.endswith("num_batches_tracked")}
    assert len(state) < len(source)
    if names != "same":
        state = {(f"tensor {i}" if names == "other" else names + k): v for i, (k, v) in enumerate(state.items())}
    torch.save(state, tmp_path / "old.pth")
    loaded = make_network(SMALL.model_copy(update={"weights": str(tmp_path / "old.pth")}), 3, 2).encoder.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in source.items() if not k.endswith("num_batches_tracked"))


@pytest.mark.parametrize("architecture", ["unet", "fpn", "deeplabv3plus"])
def test_one_image_as_small_as_the_stride_is_trained_on(architecture: str) -> None:
    """The deepest maps then have a single value a channel."""
    config = SMALL.model_copy(update={"architecture": architecture})
    out = make_network(config, 3, 0).train()(torch.rand(1, 3, 32, 32)).logits
    out.sum().backward()
    assert out.shape == (1, 2, 32, 32)
    assert torch.isfinite(out).all()


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code from a pickle ran')",)


def test_bad_weights_name_the_file_and_run_no_code(tmp_path: Path) -> None:
    missing, garbage, evil, other = (tmp_path / n for n in ("no.pth", "garbage.safetensors", "evil.pth", "other.pth"))
    garbage.write_bytes(b"not tensors")
    torch.save({"x": Evil()}, evil)
    torch.save(make_network(LITE, 3, 0).encoder.state_dict(), other)
    for path in (missing, garbage, evil, other):
        with pytest.raises(ConfigError, match=path.name):
            make_network(SMALL.model_copy(update={"weights": str(path)}), 3, 0)


def test_unknown_encoder_suggests_a_near_one() -> None:
    with pytest.raises(ConfigError, match="resnet50"):
        make_network(SMALL.model_copy(update={"encoder": "resnet_50"}), 3, 0)
    with pytest.raises(ConfigError, match=r"set --network\.weights hub, none or a file"):
        make_network(NetworkConfig(encoder="resnet18", weights="package"), 3, 0)


def test_hub_weights_off_line_say_which_three_ways_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("Network is unreachable")

    import segmentation_models_pytorch as smp

    monkeypatch.setattr(smp, "DeepLabV3Plus", refuse)
    with pytest.raises(ConfigError, match=r"three ways.*hub.*FILE.*none"):
        make_network(NetworkConfig(encoder="resnet18", weights="hub"), 3, 0)


def test_teacher_is_the_moving_average_of_weights_and_statistics() -> None:
    student = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    teacher = make_teacher(student)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    student.train()(torch.randn(4, 1, 3, 3))
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1)
    average = MovingAverage(teacher, student)
    average.move(0.9, step=10_000)
    for name, value in teacher.state_dict().items():
        now = student.state_dict()[name]
        expected = 0.9 * before[name] + 0.1 * now if value.is_floating_point() else now
        torch.testing.assert_close(value, expected)
    assert not any(p.requires_grad for p in teacher.parameters())
    average.move(0.9, step=0)  # early: (1 + 0) / (10 + 0)
    assert not teacher.training


def test_ensemble_averages_probabilities_and_restores_the_mode() -> None:
    networks = make_pair(SMALL, 3, 0).train()
    x = torch.rand(2, 3, 32, 32)
    ensemble = Ensemble(networks)
    each = ensemble.predict_each(x)
    assert all(n.training for n in networks)
    torch.testing.assert_close(ensemble.predict(x), (each[0] + each[1]) / 2)
    torch.testing.assert_close(each.sum(2), torch.ones(2, 2, 32, 32))
    torch.testing.assert_close(each, ensemble.predict_each(x))  # eval mode: no dropout, statistics not moved


@pytest.mark.parametrize(("encoder", "idle"), [("efficientnet-b0", True), ("tu-test_efficientnet", False)])
def test_parameters_that_have_no_part_are_found_and_nothing_is_changed(encoder: str, idle: bool) -> None:
    network = make_network(SMALL.model_copy(update={"encoder": encoder}), 1, 0).train()
    network.model.decoder.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert has_idle_parameters(network) == idle
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training
    assert not network.model.decoder.training
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("architecture", ["deeplabv3plus", "unet", "fpn"])
def test_beyond_the_rim_lies_what_is_at_the_rim(architecture: str) -> None:
    """The padded network gives what it gives of an image whose last row and column are repeated by hand."""
    network = make_network(SMALL.model_copy(update={"architecture": architecture}), 3, 0).eval()
    images = torch.rand(2, 3, 50, 70)
    padded = images[:, :, torch.arange(64).clamp(max=49)][..., torch.arange(96).clamp(max=69)]
    for given, whole in ((images, padded), (torch.full_like(images, 0.7), torch.full_like(padded, 0.7))):
        torch.testing.assert_close(network(given).logits, network(whole).logits[..., :50, :70])
