"""The whole configuration of an experiment: frozen pydantic models, unknown keys refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from semidg.data_config import DataConfig
from semidg.mask_values import parse_mask_values
from semidg.method_config import (
    DualLevelMethod,
    FourierConfig,
    Fraction,
    MethodConfig,
    Model,
    Positive,
    PositiveInt,
)
from semidg.types import IGNORE_INDEX

#: Test-time augmentation of a model (``networks.ensemble``).
Augmentation = Literal["none", "mirror", "scales"]


class PredictionConfig(Model):
    """How the trained networks predict."""

    augmentation: Literal[Augmentation, "auto"] = "none"
    """Test-time augmentation: none; mirror, the mean with the mirror image (twice the work); scales, of both at 1.25
    of the size too (5 times); or auto, which takes the best Dice of the validation part once training is done."""


class SpatialConfig(Model):
    """Weak augmentation, one draw a sample: what moves pixels, and a mild change of grey level."""

    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    scale: tuple[Positive, Positive] = (0.8, 1.25)
    """Range of the zoom factor, drawn log-uniformly; the smaller first."""
    translate: Fraction = 0.1
    """Largest shift, as a part of the side."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest rotation in degrees."""
    brightness: Fraction = 0.1
    """Largest additive change of grey level."""
    contrast: Fraction = 0.2
    """Largest relative change of contrast."""

    @model_validator(mode="after")
    def _ordered(self) -> SpatialConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"spatial.scale {self.scale[0]:g} to {self.scale[1]:g}: the smaller factor comes first")
        return self


class NetworkConfig(Model):
    """One of the two networks; both share this and differ in their initialisation."""

    architecture: Literal["deeplabv3plus", "unet", "fpn"] = "deeplabv3plus"
    """Decoder; deeplabv3plus is the one of the report."""
    encoder: str = "tf_efficientnet_lite0"
    """Any encoder of segmentation-models-pytorch, or of timm (``resnet50``, ``tu-convnext_tiny``, ...)."""
    weights: str = "package"
    """package (EfficientNet-Lite0 from the installed package), hub (download), none, or a file."""
    classes: Annotated[int, Field(ge=2, le=254)] = 2
    """Number of classes, background included."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in the order of their numbers, background first; empty: background and lesion, or numbers
    where there are more than two."""
    atrous_rates: tuple[PositiveInt, PositiveInt, PositiveInt] = (12, 24, 36)
    """Dilations of the ASPP module (DeepLabV3+ only); above the side of its feature map a dilation does nothing."""
    dropout: Fraction = 0.5
    """Dropout in the ASPP module (DeepLabV3+ only)."""

    @model_validator(mode="after")
    def _named(self) -> NetworkConfig:
        names = self.class_names
        if names and len(names) != self.classes:
            raise ValueError(
                f"network.class_names has {len(names)} names for {self.classes} classes (network.classes), background "
                "included; make them agree"
            )
        if any(not name.strip() or not name.isprintable() for name in names) or len(set(names)) < len(names):
            raise ValueError("network.class_names: each class needs a printable name that no other class has")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class number."""
        if self.class_names:
            return self.class_names
        if self.classes == 2:
            return "background", "lesion"
        return "background", *(f"class {number}" for number in range(1, self.classes))


class LabelledViewConfig(Model):
    """Strong view of labelled images, for every method alike: the same change of grey levels as of the view Z. What a
    method makes of labelled images (Fourier partners, pasted pieces) it makes of these."""

    probability: Fraction = 0.0
    """Probability for a labelled image to be seen in its strong view; 0: labelled images are augmented weakly only."""
    photometric: Fraction = 1.0
    """Strength of contrast, brightness, gamma, speckle and blur."""
    fourier: FourierConfig = FourierConfig()
    """Amplitudes mixed in from the other images of the batch, of which supervised has labelled ones alone."""


class OptimiserConfig(Model):
    """AdamW over both networks."""

    lr: Positive = 1e-3
    """Largest learning rate."""
    encoder_lr_factor: Positive = 1.0
    """The encoder learns with ``lr`` times this."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay of AdamW."""
    schedule: Literal["constant", "poly", "cosine"] = "poly"
    """Learning rate after its warm-up: constant, (1 - t)^power, or half a cosine; t from 0 to 1."""
    power: Positive = 0.9
    """Exponent of the poly schedule."""
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    """Linear warm-up of the learning rate."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest gradient norm of one network; 0 switches clipping off."""


class TrainerConfig(Model):
    """Length of the training, batches, checkpoints and hardware."""

    max_steps: PositiveInt = 800
    """Steps of the whole training; schedules are stretched over them."""
    batch_labelled: PositiveInt = 4
    """Labelled images a step, of all devices together."""
    batch_unlabelled: PositiveInt = 4
    """Unlabelled images a step, of all devices together; not used by the method supervised."""
    eval_every: PositiveInt = 100
    """Steps between two scorings of the validation part."""
    checkpoint_every: PositiveInt = 100
    """Steps between two writings of the resumable checkpoint."""
    log_every: PositiveInt = 10
    """Steps between two rows of metrics.csv."""
    loggers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    """Also log there what goes to metrics.csv; each needs its extra: ``pip install 'semidg[mlflow]'``."""
    eval_batch: PositiveInt = 16
    """Images at once in validation and test."""
    precision: Literal["32", "bf16", "fp16", "auto"] = "auto"
    """auto: bf16 on a GPU that has it, 32-bit elsewhere. On a CPU bf16 is faster where it has the instructions, slower
    elsewhere: ``train --estimate`` measures it."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto takes CUDA, then MPS, then the CPU."""
    devices: PositiveInt = 1
    """Devices a machine, which share each batch; on the CPU a device is a process."""
    nodes: PositiveInt = 1
    """Machines; above 1 the command is started by srun or torchrun."""
    sync_batchnorm: bool = False
    """With several devices: BatchNorm over the images of all of them, not of each. The training is then the same as on
    one device, for an exchange at every layer."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = 0
    """Processes that load data, for each device; 0 is fastest on a CPU, where the cache makes loading almost free.
    auto: 0 on a CPU, up to 4 for a GPU, as the machine has CPUs."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the CPU; 0: as many as the process may use, divided among devices and loaders."""
    channels_last: bool = True
    """Memory format of images and networks; faster on most hardware, the same mathematics."""
    compile: bool = False
    """Compile the networks (``torch.compile``), which takes minutes in the first step of a run, and again in the first
    one with unlabelled images; ``train --estimate`` says what it takes and what a step then does. Sums round in another
    order."""
    activation_checkpointing: bool = False
    """Compute the blocks of the networks a second time for the gradient, in place of keeping what is inside them: the
    same training (on a CPU bit for bit), a fraction of the memory for activations, one more forward a step."""

    @field_validator("precision", mode="before")
    @classmethod
    def _without_quotes(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value  # 32 in YAML is a number


class ExperimentConfig(Model):
    """A complete experiment: the same configuration and seed give the same run."""

    name: str = "experiment"
    """Name of the experiment, shown in tables."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of initialisation, labelled draw, batches and augmentation."""
    labelled: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Part of the training images whose labels are used, drawn at random by group."""
    data: DataConfig = DataConfig()
    spatial: SpatialConfig = SpatialConfig()
    labelled_view: LabelledViewConfig = LabelledViewConfig()
    network: NetworkConfig = NetworkConfig()
    method: MethodConfig = DualLevelMethod()
    optimiser: OptimiserConfig = OptimiserConfig()
    trainer: TrainerConfig = TrainerConfig()
    prediction: PredictionConfig = PredictionConfig()

    @model_validator(mode="after")
    def _one_of(self) -> ExperimentConfig:
        if self.trainer.compile and self.trainer.activation_checkpointing:
            raise ValueError("trainer.compile and trainer.activation_checkpointing exclude each other; choose one")
        return self

    @model_validator(mode="after")
    def _divides(self) -> ExperimentConfig:
        ranks = self.trainer.devices * self.trainer.nodes
        kinds = ("labelled",) if self.method.name == "supervised" else ("labelled", "unlabelled")
        for kind in kinds:
            size = getattr(self.trainer, f"batch_{kind}")
            if size % ranks:
                raise ValueError(
                    f"trainer.batch_{kind} {size} is shared by trainer.devices x trainer.nodes = {ranks} and must be a "
                    f"multiple of it, {-(-size // ranks) * ranks} say"
                )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentConfig:
        split = self.data.split
        if split.validation + (0 if split.target else split.test) >= 1:
            raise ValueError("data.split.validation + data.split.test must stay below 1")
        if split.exclude is not None and split.lists is not None:
            raise ValueError(
                "data.split.lists are used as they are; make them with `semidg split --exclude`, and leave "
                "data.split.exclude out"
            )
        if split.protocol == "published" and split.target is not None:
            raise ValueError("data.split.protocol published divides at random; leave data.split.target out")
        if split.target is None and (split.reserve or split.oracle):
            raise ValueError("data.split.reserve and data.split.oracle divide a held-out domain; set data.split.target")
        if split.oracle and not split.reserve:
            raise ValueError("data.split.oracle trains on reserved images; set data.split.reserve, to 0.5 say")
        ignored, taken = self.data.ignore_label, self.network.classes if self.network.classes > 2 else 1
        if ignored is not None and 0 <= ignored < taken:
            raise ValueError(f"data.ignore_label {ignored} is the number of a class; give those pixels another value")
        if split.protocol == "published" and ignored is not None:
            raise ValueError("data.split.protocol published knows no ignored pixels; leave data.ignore_label out")
        numbers = parse_mask_values(self.data.mask_values).numbers if self.data.mask_values is not None else frozenset()
        if any(self.network.classes <= number < IGNORE_INDEX for number in numbers):
            raise ValueError(
                f"data.mask_values {self.data.mask_values} name class {max(numbers - {IGNORE_INDEX})}, but the classes "
                f"are 0 to {self.network.classes - 1}; set network.classes"
            )
        if split.protocol == "published" and IGNORE_INDEX in numbers:
            raise ValueError(
                "data.split.protocol published knows no ignored pixels; leave them out of data.mask_values"
            )
        if split.protocol == "published" and self.network.classes != 2:
            raise ValueError("data.split.protocol published knows two classes; choose grouped or random for more")
        return self
