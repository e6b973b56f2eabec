"""The release artefact: networks that predict, as safetensors and JSON; never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from semidg.config import NetworkConfig
from semidg.errors import RunError
from semidg.evaluation.confidence import Calibration
from semidg.files import write_bytes
from semidg.method_config import FourierConfig
from semidg.networks.ensemble import Ensemble
from semidg.networks.factory import make_pair
from semidg.networks.folding import fold_batch_norms

FORMAT = "1"

_REFERENCES = "fourier_references"


@dataclass(frozen=True)
class Bundle:
    """Networks, which know their test-time augmentation, and what is needed to use them.

    size: side in pixels of the square they see; channels: 1 or 3; about: facts of the training (method, step, ...).
    calibration: of their confidence. references: amplitude windows of some training images, (M, C, rows, columns), for
    the views of the variance (``augmentation.fourier.reference_view``), and ``fourier``, how they are mixed in.
    """

    ensemble: Ensemble
    network: NetworkConfig
    size: int
    channels: int
    about: Mapping[str, Any]
    calibration: Calibration = field(default_factory=Calibration)
    references: Tensor | None = None
    fourier: FourierConfig = field(default_factory=FourierConfig)

    @property
    def view_lam(self) -> float:
        """Share of the references in a view: what training used on average."""
        return self.fourier.lam if self.fourier.fixed else self.fourier.lam / 2


def save_bundle(path: Path, bundle: Bundle) -> None:
    """Write one .safetensors file whose metadata hold the description; atomically."""
    description = {
        "network": bundle.network.model_dump(mode="json"),
        "networks": len(bundle.ensemble.networks),
        "augmentation": bundle.ensemble.augmentation,
        "size": bundle.size,
        "channels": bundle.channels,
        "about": dict(bundle.about),
        "calibration": bundle.calibration.to_dict(),
        "fourier": bundle.fourier.model_dump(mode="json"),
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in bundle.ensemble.state_dict().items()}
    if bundle.references is not None:
        tensors[_REFERENCES] = bundle.references.detach().cpu().contiguous()
    metadata = {"semidg_format": FORMAT, "description": json.dumps(description)}
    write_bytes(path, save(tensors, metadata=metadata))


def load_bundle(path: Path) -> Bundle:
    """Read a bundle; raises RunError that names the file."""
    if not path.is_file():
        raise RunError(f"{path}: no model here; train one with: semidg train PRESET --data.root DATA --out RUN")
    try:
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
            tensors: dict[str, Tensor] = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise RunError(f"{path}: not a readable model ({error}); evaluate or train the run again") from error
    if metadata.get("semidg_format") != FORMAT:
        raise RunError(f"{path}: a model of another version of semidg; this one reads format {FORMAT}")
    try:
        description = json.loads(metadata["description"])
        network = NetworkConfig.model_validate(description["network"] | {"weights": "none"})
        networks, size, channels = (int(description[key]) for key in ("networks", "size", "channels"))
        references = tensors.pop(_REFERENCES, None)
        ensemble = Ensemble(make_pair(network, channels, 0, networks), description.get("augmentation", "none"))
        ensemble.load_state_dict(tensors)
        calibration = Calibration.from_dict(description.get("calibration", {}))
        fourier = FourierConfig.model_validate(description.get("fourier", {}))
        about = description.get("about", {})
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path}: damaged model ({said})") from error
    if networks < 1 or size < 1 or not isinstance(about, dict):
        raise RunError(f"{path}: damaged model (its description makes no sense)")
    return Bundle(ensemble.eval(), network, size, channels, about, calibration, references, fourier)


def to_inference(ensemble: Ensemble, device: torch.device) -> Ensemble:
    """The networks on a device, in eval mode, in the form and memory format that are fastest there; a copy."""
    folded = Ensemble((fold_batch_norms(network) for network in ensemble.networks), ensemble.augmentation)
    moved: Ensemble = folded.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved.eval()
