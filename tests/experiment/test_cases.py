"""Which records are scored together, under which name, and how planes become a volume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semidg.errors import DataError
from semidg.experiment.cases import cases_of
from semidg.types import Frame, Record
from volume_support import planes_of


def image(name: str) -> Record:
    return Record(name, f"{name}.png", ("m.png",), "a", "c", name, 4, 3)


def test_an_image_is_a_case_of_its_own_and_planes_of_a_volume_are_one_in_their_order() -> None:
    a, b = planes_of("p", 3, "a"), planes_of("q", 2, "b")
    cases = cases_of([image("x"), b[1], a[2], a[0], image("y"), b[0], a[1]])
    assert [case.id for case in cases] == ["x", "b/q", "a/p", "y"]
    assert [case.planes for case in cases[1:3]] == [tuple(b), tuple(a)]
    assert [case.is_volume for case in cases] == [False, True, True, False]
    assert cases[2].spacing == (3.0, 0.8, 0.5)
    assert cases[0].spacing is None


def test_frames_of_a_film_are_images() -> None:
    film = [replace(p, frame=Frame("f", k), id=f"film f{k}") for k, p in enumerate(planes_of("f", 3, "a"))]
    assert [case.id for case in cases_of(film)] == ["film f0", "film f1", "film f2"]


def test_a_volume_without_the_distance_of_its_slices_has_no_spacing() -> None:
    (case,) = cases_of(planes_of("p", 2, "a", slice_mm=None))
    assert case.spacing is None
    (single,) = cases_of(planes_of("p", 1, "a", slice_mm=None))  # scored as an image
    assert single.spacing == (0.8, 0.5)


@pytest.mark.parametrize("between", [":", " ", "_", "/", ".", "#", " - ", "@"])
def test_the_id_of_a_volume_is_what_its_planes_have_in_common(between: str) -> None:
    planes = [replace(p, id=f"p7/scan{between}{p.frame}") for p in planes_of("s", 3, "a")]
    assert [case.id for case in cases_of(planes)] == ["p7/scan"]


def test_the_times_of_a_volume_are_cases_with_names_of_their_own() -> None:
    planes = [
        replace(p, id=f"scan:{frame}", frame=frame)
        for p in planes_of("s", 2, "a")
        for t in (0, 9)
        if (frame := Frame("z", p.frame.number, t) if p.frame else None)
    ]
    assert [(case.id, len(case.planes)) for case in cases_of(planes)] == [("scan/t0", 2), ("scan/t9", 2)]
    padded = [replace(p, id=f"scan/t{p.frame.time:02}z{p.frame.number:03}") for p in planes if p.frame]
    assert [(case.id, len(case.planes)) for case in cases_of(padded)] == [("scan/t0", 2), ("scan/t9", 2)]


def test_a_number_at_the_end_of_a_name_is_not_taken_for_the_plane() -> None:
    planes = [replace(p, id=f"scanz{k}") for k, p in enumerate(planes_of("s", 2, "a"))]
    assert [case.id for case in cases_of(planes)] == ["a/images/s.nii:z"]


def test_ids_without_the_frame_or_alike_give_way_to_the_volume() -> None:
    named = [replace(p, id=f"plane {k}") for k, p in enumerate(planes_of("s", 2, "a"))]
    assert [case.id for case in cases_of(named)] == ["a/images/s.nii:z"]
    across = [replace(p, id=f"s:x{k}", frame=Frame("x", k)) for k, p in enumerate(planes_of("s", 2, "a"))]
    down = [replace(p, id=f"s:z{k}") for k, p in enumerate(planes_of("s", 2, "a"))]
    assert [case.id for case in cases_of([*across, *down])] == ["a/images/s.nii:x", "a/images/s.nii:z"]


def test_a_plane_that_stands_twice_is_refused() -> None:
    planes = planes_of("s", 2, "a")
    with pytest.raises(DataError, match=r"a/s/z1 and again are both plane z1 of a/images/s.nii; leave one out"):
        cases_of([*planes, replace(planes[1], id="again")])


def test_planes_stand_at_their_numbers_and_what_is_missing_is_marked() -> None:
    planes = planes_of("s", 5, "a")
    (case,) = cases_of([planes[4], planes[1], planes[2]])
    stacked = case.stack([np.full((2, 3), k, np.uint8) for k in (1, 2, 4)], 255)
    assert stacked.shape == (4, 2, 3)
    assert stacked[:, 0, 0].tolist() == [1, 2, 255, 4]
    (single,) = cases_of(planes[:1])
    assert single.stack([np.ones((2, 3), np.uint8)], 255).shape == (2, 3)


def test_planes_of_different_size_are_refused() -> None:
    (case,) = cases_of(planes_of("s", 2, "a"))
    with pytest.raises(DataError, match=r"a/s: its planes differ in size \(a/s/z0 3 x 2, a/s/z1 2 x 2 pixels\)"):
        case.stack([np.zeros((2, 3), np.uint8), np.zeros((2, 2), np.uint8)], 0)


def test_domain_and_class_are_those_of_most_planes() -> None:
    planes = planes_of("s", 3, "a")
    (case,) = cases_of([replace(planes[0], domain="b", class_name="k"), *planes[1:]])
    assert (case.domain, case.class_name, case.group) == ("a", "", "a/s")
