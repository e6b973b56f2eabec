"""Name to network. Every network maps images in [0, 1] to logits and decoder features."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from semidg.config import NetworkConfig
from semidg.errors import ConfigError
from semidg.networks import weights
from semidg.networks.layers import use_fast_layers
from semidg.networks.norm import allow_single_values

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, RGB


class NetworkOutput(NamedTuple):
    """logits: (B, K, H, W). features: (B, D, h, w), the decoder's, before the segmentation head."""

    logits: Tensor
    features: Tensor


class SegmentationNetwork(nn.Module):
    """Encoder, decoder and head of segmentation-models-pytorch, with the input normalisation inside."""

    def __init__(self, model: nn.Module, channels: int) -> None:
        super().__init__()
        self.model = model
        mean, std = (torch.tensor(v) for v in (_MEAN, _STD))
        if channels == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        self.register_buffer("mean", mean[None, :, None, None], persistent=False)
        self.register_buffer("std", std[None, :, None, None], persistent=False)
        self.mean: Tensor
        self.std: Tensor

    @property
    def encoder(self) -> nn.Module:
        """The part that may carry ImageNet weights."""
        return self.model.encoder  # type: ignore[return-value]

    def forward(self, images: Tensor, perturb: Callable[[list[Tensor]], list[Tensor]] | None = None) -> NetworkOutput:
        """images: (B, C, H, W) in [0, 1]; any H and W (padded to a multiple of 32 and cropped back).

        perturb: changes the encoder's maps, each (B, D_i, h_i, w_i), finest first, before the decoder gets them.
        """
        height, width = images.shape[-2:]
        x = (images - self.mean) / self.std
        pad = (-width % 32, -height % 32)
        if any(pad):
            x = nn.functional.pad(x, (0, pad[0], 0, pad[1]), mode="replicate")
        maps = self.model.encoder(x)  # type: ignore[operator]
        features = self.model.decoder(maps if perturb is None else perturb(maps))  # type: ignore[operator]
        logits: Tensor = self.model.segmentation_head(features)  # type: ignore[operator]
        return NetworkOutput(logits[..., :height, :width], features)


def make_network(config: NetworkConfig, channels: int, seed: int) -> SegmentationNetwork:
    """One network; every layer without ImageNet weights is drawn from ``seed``. Raises ConfigError."""
    name = _encoder_name(config.encoder)
    hub = config.weights == "hub"
    options: dict[str, Any] = {}
    if config.architecture == "deeplabv3plus":
        options = {"decoder_atrous_rates": config.atrous_rates, "decoder_aspp_dropout": config.dropout}
    build = {"deeplabv3plus": smp.DeepLabV3Plus, "unet": smp.Unet, "fpn": smp.FPN}[config.architecture]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = build(
                encoder_name=name,
                encoder_weights="imagenet" if hub else None,
                in_channels=channels,
                classes=config.classes,
                **options,
            )
        # what smp and timm raise: an unknown name, a setting or dilation that it cannot have, no file
        except (ValueError, KeyError, RuntimeError, OSError) as error:
            if hub:
                raise weights.hub_error(config.encoder, error) from error
            raise ConfigError(f"network.encoder {config.encoder!r} cannot be built: {error}") from error
        except Exception as error:
            if hub:  # the hub client has errors of its own, of several libraries
                raise weights.hub_error(config.encoder, error) from error
            raise
    if config.weights == "package":
        if name != f"tu-{weights.PACKAGE_ENCODER}":
            raise ConfigError(
                f"network.weights = package holds {weights.PACKAGE_ENCODER} only, not {config.encoder!r}; "
                "set --network.weights hub, none or a file"
            )
        weights.load_encoder(model.encoder, weights.package_weights(), "package weights")
    elif config.weights not in ("hub", "none"):
        weights.load_encoder(model.encoder, weights.read_tensors(Path(config.weights)), config.weights)
    use_fast_layers(model)
    allow_single_values(model)
    return SegmentationNetwork(model, channels)


def has_idle_parameters(network: SegmentationNetwork) -> bool:
    """Whether a parameter has no part in what the network says, such as the last convolution of smp's EfficientNets."""
    modes = [(module, module.training) for module in network.modules()]
    parameters = [p for p in network.parameters() if p.requires_grad]
    shape = (1, network.mean.shape[1], 64, 64)
    try:
        output = network.eval()(torch.zeros(shape, device=parameters[0].device))  # eval: statistics stay as they are
        total = output.logits.float().sum() + output.features.float().sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    finally:
        for module, training in modes:
            module.training = training
    return any(gradient is None for gradient in gradients)


def make_pair(config: NetworkConfig, channels: int, seed: int, count: int = 2) -> nn.ModuleList:
    """``count`` networks of one architecture and different initialisation (heads and every layer without ImageNet
    weights are drawn from different seeds; nothing is shared)."""
    return nn.ModuleList(make_network(config, channels, seed * 1009 + k) for k in range(count))


def _encoder_name(encoder: str) -> str:
    """The library's name of an encoder: its own, or ``tu-NAME`` for one of timm."""
    if encoder.startswith("tu-"):
        if timm.is_model(encoder[3:]):
            return encoder
    elif encoder in smp.encoders.get_encoder_names():
        return encoder
    elif timm.is_model(encoder):
        return f"tu-{encoder}"
    near = difflib.get_close_matches(encoder, {*smp.encoders.get_encoder_names(), *timm.list_models()}, 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(f"network.encoder {encoder!r} is unknown{hint}")
