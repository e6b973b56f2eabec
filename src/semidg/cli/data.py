"""semidg phantom, index and split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from semidg.cli.options import parse
from semidg.cli.progress import Bars
from semidg.config_file import parse_config
from semidg.data_config import DataConfig, LayoutName

if TYPE_CHECKING:
    from semidg.data.index import Index


@dataclass(frozen=True)
class PhantomOptions:
    """Options of phantom."""

    out: Path
    """Folder to make: SCANNER/images and SCANNER/masks for each of the four scanners."""
    images: int = 40
    """Images a scanner."""
    size: int = 192
    """Lateral size in pixels."""
    seed: int = 0
    """The same seed gives the same images."""
    anatomy: Literal["breast", "cardiac"] = "breast"
    """breast: lesions, masks of 0 and 255. cardiac: hearts, masks of four classes."""


def phantom(arguments: Sequence[str]) -> int:
    """Write the phantom."""
    options = parse("phantom", PhantomOptions, arguments, "Write synthetic ultrasound of four scanners, with masks.")
    from semidg.data.phantom import write_phantom

    with Bars() as bars:
        write_phantom(
            options.out,
            options.images,
            options.size,
            options.seed,
            lambda d, t: bars.report("simulating", d, t),
            anatomy=options.anatomy,
        )
    print(f"{options.out}: 4 scanners, {options.images} images each, with masks")
    return 0


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What index, audit and split read a data set with."""

    root: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
    """Root folder of the data set, or a table of its images, NAME.csv."""
    more_roots: tuple[Path, ...] = ()
    """Further data sets used together with ROOT; each of all these roots is a domain."""
    layout: LayoutName = "auto"
    """auto recognises the layout."""
    images: str | None = None
    """In place of a layout: pattern of the images, such as 'original/*'; {domain} and {class} may stand in it."""
    masks: str | None = None
    """Pattern of their masks, such as 'GT/*_mask': wildcards stand for the same text as those of the image."""
    groups: str | None = None
    """Regular expression with one group, which finds the patient in the path of an image."""
    include_normal: bool = False
    """BUSI: also the normal class."""
    all_times: bool = False
    """M&Ms: also the times without masks, as unlabelled images."""
    slice_axis: Literal["auto", "x", "y", "z"] = "auto"
    """Axis across which the slices of a volume lie; auto: that of the largest spacing."""
    orientation: Literal["stored", "patient"] = "stored"
    """Slices of a volume as the file stores them, or turned by its affine to how they lie in the patient."""
    similarity: float = 0.95
    """Correlation above which two images are near-duplicates."""
    classes: int = 2
    """Values a mask may hold, background included."""
    ignore_label: int | None = None
    """Value in the mask files of pixels that are not known."""
    mask_values: str | None = None
    """What the values of the mask files mean, such as '0:2,128:1,255:0'; also LOW-HIGH:CLASS, '#ff0000:1', '*:0'."""
    domains: str = "layout"
    """layout: as the data say; styles:K: K acquisition styles, derived from the looks of the images."""

    def data_config(self, split: Mapping[str, Any] | None = None, labelled: float = 1.0) -> DataConfig:
        """The options as section ``data`` of a configuration, checked; ``split``: further keys of its ``split``."""
        names = {field.name for field in fields(DataOptions)} & DataConfig.model_fields.keys()
        data: dict[str, Any] = {name: getattr(self, name) for name in names}
        data["split"] = {"similarity": self.similarity, **(split or {})}
        values = {"data": data, "network": {"classes": self.classes}, "labelled": labelled}
        return parse_config(values, "options").data

    def index(self, config: DataConfig, skip_bad: bool = False) -> Index:
        """The index of the data set, with a progress bar."""
        from semidg.data.index import index_data

        with Bars() as bars:
            return index_data(
                config, self.classes, skip_bad=skip_bad, progress=lambda d, t: bars.report("indexing", d, t)
            )


@dataclass(frozen=True, kw_only=True)
class IndexOptions(DataOptions):
    """Options of index."""

    out: Path = Path("index.csv")
    """File to write."""
    picture: Path | None = None
    """File for a picture of each domain: the images nearest to its mean, .png or .svg."""
    skip_bad: bool = False
    """Leave files with problems out, and say which, in place of an error."""


def index(arguments: Sequence[str]) -> int:
    """Check and list a data set."""
    options = parse("index", IndexOptions, arguments, "Check every file of a data set and write index.csv.")
    from semidg.data.index import unused_images, write_index
    from semidg.data.paths import printable

    if options.picture is not None:  # before all files are read
        from semidg.report.domains_figure import require_picture, write_domains_figure

        require_picture(options.picture)
    found = options.index(options.data_config(), options.skip_bad)
    write_index(found, options.out)
    for line in found.skipped:
        print(f"skipped: {line}")
    if found.doubt:
        print(f"look at the masks: {found.doubt}")
    sizes = Counter(r.group for r in found.records)
    twins = [n for n in sizes.values() if n > 1]
    print(f"{options.out}: {len(found.records)} images, layout {found.layout}")
    for domain, count in sorted(Counter(r.domain for r in found.records).items()):
        with_mask = sum(r.labelled for r in found.records if r.domain == domain)
        print(f"  {domain}: {count} images, {with_mask} with a mask{_hint(found, domain, with_mask)}")
    print(f"  near-duplicates and images of one patient: {sum(twins)} images in {len(twins)} groups")
    if unused := unused_images(found, (options.root, *options.more_roots)):
        print(f"  not used: {len(unused)} image files, such as {', '.join(map(printable, unused[:2]))}")
    if options.picture is not None:
        write_domains_figure(found, options.picture)
        print(f"{options.picture}: images of each domain")
    return 0


def _hint(found: Index, domain: str, with_mask: int) -> str:
    """Where the masks of a domain without any may be, in the layout of folders."""
    if with_mask or found.layout != "folders":
        return ""
    folder = found.root / domain if (found.root / domain / "images").is_dir() else found.root
    others = sorted(child.name for child in folder.iterdir() if child.is_dir() and child.name != "images")
    text = f" (masks lie in {folder / 'masks'}, which is not there; {', '.join(others)} was not looked into)"
    return text if others and "masks" not in others else ""


@dataclass(frozen=True, kw_only=True)
class SplitOptions(DataOptions):
    """Options of split."""

    out: Path
    """Folder of the lists; train with --data.split.lists FOLDER."""
    labelled: float = 0.25
    """Part of the training images whose labels are used."""
    seed: int = 0
    """Seed of the labelled draw."""
    split_seed: int = 0
    """Seed of the division into training, validation and test part."""
    protocol: Literal["grouped", "random", "published"] = "grouped"
    """grouped keeps near-duplicates on one side; random does not; published is random without validation part."""
    validation: float = 0.1
    """Part of the images for validation."""
    test: float = 0.2
    """Part of the images for the test."""
    target: str | None = None
    """A whole domain as test part."""
    exclude: Path | None = None
    """Table of images to leave out: issues.csv of `semidg audit`, with yes, other or both in its column exclude."""


def split(arguments: Sequence[str]) -> int:
    """Write split lists."""
    options = parse("split", SplitOptions, arguments, "Divide a data set; the lists are text files image<TAB>mask.")
    from semidg.data.splits import make_split, write_split

    values = {
        "protocol": options.protocol,
        "validation": options.validation,
        "test": options.test,
        "target": options.target,
        "seed": options.split_seed,
        "exclude": options.exclude,
    }
    config = options.data_config(values, options.labelled)
    found = options.index(config)
    made = make_split(found.records, config.split, options.labelled, options.seed, found.excluded)
    write_split(made, found.root, options.out)
    counts = json.loads((options.out / "split.json").read_text("utf-8"))["counts"]
    for part, count in counts.items():
        domains = ", ".join(f"{name} {number}" for name, number in count["domains"].items())
        print(f"  {part}: {count['images']} images in {count['groups']} groups ({domains})")
    if found.excluded:
        print(f"  left out as {options.exclude} says: {len(found.excluded)} images")
    print(f"{options.out}: train with --data.split.lists {options.out}")
    return 0
