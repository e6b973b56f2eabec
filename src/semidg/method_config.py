"""Configuration of the methods: a union told apart by the method's name, and the sections that methods share."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
PositiveInt = Annotated[int, Field(ge=1)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FourierConfig(Model):
    """Fourier amplitude mixing, METHOD equations 1 and 2."""

    window: Annotated[float, Field(ge=0, le=1)] = 0.02
    """L: half-width of the low-frequency window as a part of the shorter side; with floor(L * side) = 0
    only the mean grey level is mixed."""
    lam: Fraction = 0.8
    """Largest share of the other image's amplitude."""
    fixed: bool = False
    """True: the share is always ``lam``; False: drawn from U(0, lam) for each image."""
    form: Literal["interpolated", "printed"] = "interpolated"
    """printed: the equation as printed in the report, which also scales the high frequencies."""


class StrongConfig(Model):
    """Strong augmentation of the unlabelled view Z, a whole batch at once, on the device."""

    photometric: Fraction = 1.0
    """Strength of contrast, brightness, gamma, speckle and blur; 0: the view is the Fourier view alone."""
    cutmix: Fraction = 0.5
    """Probability for an image to get a rectangle of another unlabelled image, with its pseudo label."""


class RampConfig(Model):
    """w(t), the weight of the unsupervised terms: 0, then a sigmoid ramp, then ``maximum``."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of the training with w = 0."""
    end: Fraction = 0.4
    """Part of the training at which w reaches ``maximum``."""
    maximum: Annotated[float, Field(ge=0)] = 1.0
    """w_max, the weight of the unsupervised terms at the end of the ramp."""


class BoundaryConfig(Model):
    """Boundary terms of the supervised part, on the labelled images; a weight of 0 leaves a term out."""

    edge_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the term edge: a head on the decoder's features learns the edges of the mask."""
    distance_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the term boundary (Kervadec et al., MIDL 2019) at the end of training, risen linearly from 0."""
    hausdorff_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the term hausdorff: the logarithmic Hausdorff loss of MONAI (Karimi and Salcudean, TMI 2020)."""


class _Method(Model):
    boundary: BoundaryConfig = BoundaryConfig()


class ContrastiveConfig(Model):
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
    """Form of the weight exp(-V): one a pixel (the paper), one a batch (scalar: its published code), or none."""
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

    @model_validator(mode="after")
    def _counts(self) -> DualLevelMethod:
        if self.view_dice and not self.view_weight:
            raise ValueError(
                f"method.view_dice {self.view_dice:g} is a part of the term between views, which method.view_weight 0 "
                "switches off; give that a weight, or leave view_dice out"
            )
        return self


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
    networks: Literal[1, 2] = 1
    """2: another one is trained beside it, on views of its own; they predict together, and teach each other nothing."""
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
    """The paper's lambda: 1.5 on PASCAL VOC, 6 on Cityscapes; 0 switches the cross supervision off."""
    threshold: Fraction = 0.0
    """Pseudo labels of a lower probability are left out; 0 keeps all, as published."""


class CrossLightMethod(StrongRecipeConfig):
    """CrossLight, our own: two networks, each on a strong view of its own, learn from the mean of what both averages
    say of the plain image and of its mirror image."""

    name: Literal["crosslight"] = "crosslight"
    """Chooses the method."""
    networks: Literal[1, 2] = 2
    """1: a single network, at half the cost."""
    labels: Literal["mean", "cross"] = "mean"
    """mean: both networks learn from the mean of both averages; cross: each from the average of the other one."""
    mirror: bool = True
    """True: what an average says is the mean over the image and its left-right mirror image."""
    target: Literal["soft", "hard"] = "soft"
    """soft: the networks learn the probabilities themselves; hard: the most probable class."""
    threshold: Fraction = 0.0
    """tau: pixels where the most probable class has a lower probability teach nothing; 0: all teach."""
    views: Literal["own", "shared"] = "own"
    """own: each network gets a strong view of its own; shared: both get the same."""
    paste: Fraction = 0.5
    """Probability for a strong view to get a rectangle of a labelled image, with its label."""
    paste_view: Literal["strong", "weak"] = "strong"
    """strong: these rectangles are in another light too, with a draw of their own; weak: as the labelled images of the
    batch are, which labelled_view may have changed already."""

    @model_validator(mode="after")
    def _two(self) -> CrossLightMethod:
        if self.networks == 1 and self.labels == "cross":
            raise ValueError("method.labels cross is between two networks; leave it out, or set method.networks 2")
        if self.networks == 1 and self.views == "shared":
            raise ValueError("method.views shared is of two networks; leave it out, or set method.networks 2")
        if self.paste_view == "weak" and not self.paste:
            raise ValueError("method.paste_view weak is of pasted rectangles, which method.paste 0 switches off")
        return self


MethodConfig = Annotated[
    SupervisedMethod
    | EPLMethod
    | DualLevelMethod
    | MeanTeacherMethod
    | UAMTMethod
    | FixMatchMethod
    | UniMatchMethod
    | BCPMethod
    | CPSMethod
    | CrossLightMethod,
    Field(discriminator="name"),
]

#: The configuration class of every method by the name that chooses it: what the union holds.
METHOD_CONFIGS: dict[str, type[BaseModel]] = {
    kind.model_fields["name"].default: kind for kind in get_args(get_args(MethodConfig)[0])
}
