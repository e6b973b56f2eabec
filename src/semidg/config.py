"""The whole configuration of an experiment: frozen pydantic models, unknown keys refused, YAML in and out."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from semidg.errors import ConfigError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
PositiveInt = Annotated[int, Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SplitConfig(_Model):
    """How the data set is divided; see docs/reference/splits.md."""

    protocol: Literal["grouped", "random", "published"] = "grouped"
    """grouped: near-duplicates stay on one side. random: image by image (leaks twins). published: random, without
    a validation part: the best checkpoint is chosen on the test part, and masks are scored resized, as published."""
    validation: Fraction = 0.1
    """Part of the images of the source domains used to choose settings and checkpoints."""
    test: Fraction = 0.2
    """Part of the images of the source domains kept for the test; ignored where ``target`` is set."""
    target: str | None = None
    """A whole domain held out as test part: never seen in training, labelled or not."""
    seed: int = 0
    """Seed of the division into training, validation and test part (not of the labelled draw)."""
    similarity: Fraction = 0.95
    """Normalised cross-correlation on 64 x 64 grey above which two images are near-duplicates."""
    lists: Path | None = None
    """A folder of split lists to use as they are (``semidg split`` writes one) in place of a new draw."""


class DataConfig(_Model):
    """Which data set, and how its images reach the networks."""

    root: Path | None = None
    """Root folder of the data set."""
    layout: Literal["auto", "busi", "folders"] = "auto"
    """auto recognises the layout; busi: benign/malignant/normal; folders: DOMAIN/images + DOMAIN/masks."""
    size: PositiveInt = 128
    """Side in pixels of the square the networks see; masks are scored at the original size."""
    channels: Literal[1, 3] = 3
    """Channels the images are read with: 1 (grey) or 3 (RGB)."""
    include_normal: bool = False
    """BUSI: also use the normal class (no lesion)."""
    balance: Literal["none", "flip"] = "none"
    """flip: training images of every class but the largest (BUSI: malignant) are also used flipped left-right."""
    cache: Path | None = None
    """Folder of the decoded-image cache; default: semidg under the user's cache folder."""
    split: SplitConfig = SplitConfig()


class SpatialConfig(_Model):
    """Weak augmentation, one draw a sample: what moves pixels, and a mild change of grey level."""

    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    scale: tuple[float, float] = (0.8, 1.25)
    """Range of the zoom factor, drawn log-uniformly."""
    translate: Fraction = 0.1
    """Largest shift, as a part of the side."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest rotation in degrees."""
    brightness: Fraction = 0.1
    """Largest additive change of grey level."""
    contrast: Fraction = 0.2
    """Largest relative change of contrast."""


class NetworkConfig(_Model):
    """One of the two networks; both share this and differ in their initialisation."""

    architecture: Literal["deeplabv3plus", "unet", "fpn"] = "deeplabv3plus"
    """Decoder; deeplabv3plus is the one of the report."""
    encoder: str = "tf_efficientnet_lite0"
    """Any encoder of segmentation-models-pytorch, or of timm (``resnet50``, ``tu-convnext_tiny``, ...)."""
    weights: str = "package"
    """package (EfficientNet-Lite0 from the installed package), hub (download), none, or a file."""
    classes: Annotated[int, Field(ge=2, le=254)] = 2
    """Number of classes, background included."""
    atrous_rates: tuple[int, int, int] = (12, 24, 36)
    """Dilations of the ASPP module (DeepLabV3+ only); above the side of its feature map a dilation does nothing."""
    dropout: Fraction = 0.5
    """Dropout in the ASPP module (DeepLabV3+ only)."""


class FourierConfig(_Model):
    """Fourier amplitude mixing, METHOD equations 1 and 2."""

    window: Annotated[float, Field(ge=0, le=1)] = 0.02
    """L: half-width of the low-frequency window as a part of the shorter side; floor(L * side) >= 1 to act."""
    lam: Fraction = 0.8
    """Largest share of the other image's amplitude."""
    fixed: bool = False
    """True: the share is always ``lam``; False: drawn from U(0, lam) for each image."""
    form: Literal["interpolated", "printed"] = "interpolated"
    """printed: the equation as printed in the report, which also scales the high frequencies."""


class StrongConfig(_Model):
    """Strong augmentation of the unlabelled view Z, a whole batch at once, on the device."""

    photometric: Fraction = 1.0
    """Strength of contrast, brightness, gamma, speckle and blur; 0: the view is the Fourier view alone."""
    cutmix: Fraction = 0.5
    """Probability for an image to get a rectangle of another unlabelled image, with its pseudo label."""


class LabelledViewConfig(_Model):
    """Strong view of labelled images, for every method alike: the same change of grey levels as of the view Z."""

    probability: Fraction = 0.0
    """Probability for a labelled image to be seen in its strong view; 0: labelled images are augmented weakly only."""
    photometric: Fraction = 1.0
    """Strength of contrast, brightness, gamma, speckle and blur."""
    fourier: FourierConfig = FourierConfig()
    """Amplitudes mixed in from the other images of the batch."""


class RampConfig(_Model):
    """w(t), the weight of the unsupervised terms: 0, then a sigmoid ramp, then ``maximum``."""

    warmup: Fraction = 0.1
    """Part of the training with w = 0."""
    end: Fraction = 0.4
    """Part of the training at which w reaches ``maximum``."""
    maximum: Annotated[float, Field(ge=0)] = 1.0
    """w_max, the weight of the unsupervised terms at the end of the ramp."""


class BoundaryConfig(_Model):
    """Boundary terms of the supervised part, on the labelled images; a weight of 0 leaves a term out."""

    edge_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the term edge: a head on the decoder's features learns the edges of the mask."""
    distance_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the term boundary at the end of training, risen linearly from 0 (Kervadec et al., MIDL 2019)."""
    hausdorff_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the term hausdorff: the logarithmic Hausdorff loss of MONAI (Karimi and Salcudean, TMI 2020)."""


class _Method(_Model):
    boundary: BoundaryConfig = BoundaryConfig()


class ContrastiveConfig(_Model):
    """Contrastive module between the two networks; acts where ``contrastive_weight`` is above 0."""

    anchors: PositiveInt = 256
    """Most pixels drawn from a class and batch, at the resolution of the decoder's features."""
    confidence: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Unlabelled images: pixels are drawn where both networks give one label, each with more than this probability."""
    boundary_share: Fraction = 0.5
    """Part of the pixels of a class drawn from a band along its boundary."""
    temperature: Positive = 0.1
    """Temperature of InfoNCE."""


class SupervisedMethod(_Method):
    """Both networks learn from the labelled images only."""

    name: Literal["supervised"] = "supervised"
    """Chooses the method."""
    networks: Literal[1, 2] = 2
    """1: a single network, the usual baseline; 2: the pair, so that the ensemble is not the difference."""
    teacher: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the moving averages that predict, the same as for the other methods; 0: the networks predict."""


class _TwoNetworkMethod(_Method):
    fourier: FourierConfig = FourierConfig()
    strong: StrongConfig = StrongConfig()
    ramp: RampConfig = RampConfig()
    teacher: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the moving-average teachers that make the pseudo labels; 0: the networks label by themselves,
    as published."""
    confidence: Literal["pixel", "scalar", "none"] = "pixel"
    """Form of the weight exp(-V): a pixel each (the paper), a scalar an image (its published code), or none."""
    detach_confidence: bool = False
    """True: no gradient through exp(-V) and V."""
    threshold: Fraction = 0.8
    """Pseudo labels of a lower probability are left out; 0 keeps all, as published."""
    contrastive_weight: Annotated[float, Field(ge=0)] = 0.0
    """a_con: class-aware contrast between the decoder features of the two networks; 0 switches it off."""
    contrastive: ContrastiveConfig = ContrastiveConfig()


class EPLMethod(_TwoNetworkMethod):
    """Confidence-aware cross pseudo supervision (Yao, Hu, Li, AAAI 2022)."""

    name: Literal["epl"] = "epl"
    """Chooses the method."""


class DualLevelMethod(_TwoNetworkMethod):
    """EPL with consistency between the views of a network and between the networks (the report)."""

    name: Literal["dual_level"] = "dual_level"
    """Chooses the method."""
    view_weight: Annotated[float, Field(ge=0)] = 1.0
    """a_view: cross pseudo supervision between the two views of one network; 0 switches it off."""
    view_direction: Literal["both", "weak_to_strong"] = "weak_to_strong"
    """both: each view teaches the other, as in the report; weak_to_strong: X teaches Z only."""
    view_dice: Annotated[float, Field(ge=0)] = 0.0
    """Weight of a soft Dice loss beside the cross entropy between the views; 0 is the report."""
    network_weight: Annotated[float, Field(ge=0)] = 0.3
    """a_net: KL divergence between the networks; 0 switches it off."""
    between: Literal["averaged", "cross_view"] = "averaged"
    """averaged: equations 8 and 9; cross_view: what the report's code computes."""


class RecipeConfig(_Method):
    """What the single-signal methods share, so that only the method differs."""

    fourier: FourierConfig = FourierConfig()
    ramp: RampConfig = RampConfig()
    teacher: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the moving averages that predict and make the pseudo labels; 0: the networks do both by themselves,
    labels in eval mode."""


class StrongRecipeConfig(RecipeConfig):
    """The shared recipe of the methods that learn on the strong view Z."""

    strong: StrongConfig = StrongConfig()


class MeanTeacherMethod(StrongRecipeConfig):
    """Mean Teacher: the squared distance to the probabilities of a moving average (NeurIPS 2017)."""

    name: Literal["mean_teacher"] = "mean_teacher"
    """Chooses the method."""
    teacher: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Decay of the moving average that predicts and gives the targets."""


class UAMTMethod(StrongRecipeConfig):
    """UA-MT: Mean Teacher where the teacher is certain under dropout and noise (MICCAI 2019)."""

    name: Literal["ua_mt"] = "ua_mt"
    """Chooses the method."""
    teacher: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Decay of the moving average that predicts and gives the targets."""
    passes: PositiveInt = 8
    """T: Monte-Carlo passes of the teacher, with dropout on and noise on its input."""
    noise: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation of the Gaussian noise on the input of these passes, clipped at two of it."""
    threshold_start: Fraction = 0.75
    """Pixels count whose entropy is below a part of the largest possible; this part rises from here to 1."""


class FixMatchMethod(StrongRecipeConfig):
    """FixMatch: hard labels of the weak view, where confident, teach the strong view (NeurIPS 2020)."""

    name: Literal["fixmatch"] = "fixmatch"
    """Chooses the method."""
    threshold: Fraction = 0.95
    """tau: pixels whose pseudo label has a lower probability teach nothing."""


class UniMatchMethod(StrongRecipeConfig):
    """UniMatch: FixMatch with two strong views and with dropped-out features of the weak view (CVPR 2023)."""

    name: Literal["unimatch"] = "unimatch"
    """Chooses the method."""
    threshold: Fraction = 0.95
    """tau: pixels whose pseudo label has a lower probability teach nothing."""
    feature_weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the perturbed-features term (the paper's lambda); 0 switches it off."""
    strong_weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the mean over the two strong views (the paper's mu); 0 switches them off."""
    feature_dropout: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability for a channel of the encoder's features to be set to 0."""


class BCPMethod(RecipeConfig):
    """BCP: rectangles pasted both ways between labelled and unlabelled images (CVPR 2023)."""

    name: Literal["bcp"] = "bcp"
    """Chooses the method."""
    photometric: Fraction = 1.0
    """Strength of contrast, brightness, gamma, speckle and blur of the unlabelled images; pasting replaces CutMix."""
    beta: Annotated[float, Field(gt=0, lt=1)] = 2 / 3
    """Sides of the pasted rectangle as a part of those of the image."""
    alpha: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the pixels with a pseudo label, those with a label having 1."""
    largest_component: bool = True
    """True: of each class, only the largest connected part of a pseudo label is kept, as published."""


class CPSMethod(StrongRecipeConfig):
    """CPS: each of two networks learns from the hard labels of the other (CVPR 2021)."""

    name: Literal["cps"] = "cps"
    """Chooses the method."""
    cross_weight: Annotated[float, Field(ge=0)] = 1.5
    """The paper's lambda, as published for PASCAL VOC; 0 switches the cross supervision off."""
    threshold: Fraction = 0.0
    """Pseudo labels of a lower probability are left out; 0 keeps all, as published."""


MethodConfig = Annotated[
    SupervisedMethod
    | EPLMethod
    | DualLevelMethod
    | MeanTeacherMethod
    | UAMTMethod
    | FixMatchMethod
    | UniMatchMethod
    | BCPMethod
    | CPSMethod,
    Field(discriminator="name"),
]

#: The configuration class of every method by the name that chooses it: what the union holds.
METHOD_CONFIGS: dict[str, type[BaseModel]] = {
    kind.model_fields["name"].default: kind for kind in get_args(get_args(MethodConfig)[0])
}


class OptimiserConfig(_Model):
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


class TrainerConfig(_Model):
    """Length of the training, batches, checkpoints and hardware."""

    max_steps: PositiveInt = 800
    """Steps of the whole training; schedules are stretched over them."""
    batch_labelled: PositiveInt = 4
    """Labelled images a step."""
    batch_unlabelled: PositiveInt = 4
    """Unlabelled images a step; not used by the method supervised."""
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
    """auto: bf16 on a GPU that has it, 32-bit elsewhere."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto takes CUDA, then MPS, then the CPU."""
    devices: PositiveInt = 1
    """Devices a machine; only 1 is supported so far."""
    nodes: PositiveInt = 1
    """Machines; only 1 is supported so far."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that load data; 0 is fastest on a CPU, where the cache makes loading almost free."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the CPU; 0: as many as the process may use."""
    channels_last: bool = True
    """Memory format of images and networks; faster on most hardware, the same mathematics."""


class ExperimentConfig(_Model):
    """A complete experiment: the same configuration and seed give the same run."""

    name: str = "experiment"
    """Name of the experiment, shown in tables."""
    seed: int = 0
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

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentConfig:
        split = self.data.split
        if split.validation + (0 if split.target else split.test) >= 1:
            raise ValueError("data.split.validation + data.split.test must stay below 1")
        if split.protocol == "published" and split.target is not None:
            raise ValueError("data.split.protocol published divides at random; leave data.split.target out")
        if split.protocol == "published" and self.network.classes != 2:
            raise ValueError("data.split.protocol published knows two classes; choose grouped or random for more")
        return self


def presets() -> list[str]:
    """Names of the built-in configurations."""
    return sorted(p.name[:-5] for p in resources.files("semidg.configs").iterdir() if p.name.endswith(".yaml"))


def load_config(source: str | Path) -> ExperimentConfig:
    """Read a preset by name or a YAML file by path; raises ConfigError that names the file and the key."""
    if str(source) in presets():
        text, where = (
            resources.files("semidg.configs").joinpath(f"{source}.yaml").read_text("utf-8"),
            f"preset {source}",
        )
    else:
        path = Path(source)
        if not path.is_file():
            near = difflib.get_close_matches(str(source), presets(), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{source}: neither a preset ({', '.join(presets())}) nor a YAML file{hint}")
        try:
            text, where = path.read_text("utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as text ({error})") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: must be a mapping of keys to values, not a {type(values).__name__}")
    return parse_config(values, where)


def parse_config(values: dict[str, Any], where: str) -> ExperimentConfig:
    """Validate a nested mapping; ``where`` names its origin in the error."""
    try:
        return ExperimentConfig.model_validate(values)
    except ValidationError as error:
        raise config_error(error, where) from error


def config_error(error: ValidationError, where: str) -> ConfigError:
    """A line for each wrong key or value."""
    return ConfigError("\n".join(f"{where}: {_explain(item)}" for item in error.errors()))


def dump_config(config: ExperimentConfig) -> str:
    """The configuration as YAML; ``load_config`` reads it back unchanged."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _explain(item: Any) -> str:
    path = [str(part) for part in item["loc"]]
    key = ".".join(p for p in path if p not in METHOD_CONFIGS)  # pydantic adds the member of the union
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known_keys(), 1, cutoff=0.3)
        return f"unknown key {key!r}" + (f"; the nearest known key is {near[0]!r}" if near else "")
    return f"{key}: {item['msg']} (got {item['input']!r})" if key else str(item["msg"])


def known_keys(model: type[BaseModel] = ExperimentConfig, prefix: str = "") -> list[str]:
    """All dotted keys of the configuration."""
    keys: list[str] = []
    for name, info in model.model_fields.items():
        if name == "method":
            for sub in METHOD_CONFIGS.values():
                keys += known_keys(sub, f"{prefix}method.")
        elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys += known_keys(info.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return list(dict.fromkeys(keys))
