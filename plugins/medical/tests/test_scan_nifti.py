"""NIfTI: the same slice whichever way a volume is stored, and limits before anything is unpacked."""

from __future__ import annotations

import gzip
import itertools
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from modalign import BadSample
from modalign_medical.scan_nifti import read_nifti
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

sys.path.insert(0, str(Path(__file__).parent))
import files

VOLUME = np.random.default_rng(0).integers(0, 1000, (6, 7, 8)).astype(np.int16)  # right to left, …
CODES = [
    "".join(sign[i][axis] for i, axis in enumerate(order))
    for order in itertools.permutations(range(3))
    for sign in itertools.product(("LPI", "RAS"), repeat=3)
]


def read(content, plane="axial", frame="middle", window="range", orient=True, most=10**7):
    return read_nifti(content, plane, frame, window, orient, 10**6, most)


def stored_as(codes: str) -> bytes:
    """The volume, whose axes go to the right, front and head, stored with other axes."""
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    turned = nibabel.apply_orientation(VOLUME, change)
    affine = np.diag([1.0, 2.0, 4.0, 1.0]) @ inv_ornt_aff(change, VOLUME.shape)
    return files.nifti(np.ascontiguousarray(turned), affine)


def expected(plane: str, number: int) -> np.ndarray:
    """Left to the viewer's right (the patient's right to the left), front or head above."""
    if plane == "axial":
        return VOLUME[::-1, ::-1, number].T  # rows to the left, columns to the back
    if plane == "coronal":
        return VOLUME[::-1, number, ::-1].T
    return VOLUME[number, ::-1, ::-1].T


@pytest.mark.parametrize("codes", CODES)
def test_the_same_slice_whichever_way_it_is_stored(codes):
    content = stored_as(codes)
    for plane, axis, aspect in (("axial", 2, 2.0), ("coronal", 1, 4.0), ("sagittal", 0, 2.0)):
        count = VOLUME.shape[axis]
        for number in (0, 2):
            at = count - 1 - number if plane == "sagittal" else number  # counted from the right
            picture, found = read(content, plane, number)
            values = expected(plane, at).astype(float)
            scaled = (values - values.min()) / (values.max() - values.min()) * 255
            assert np.abs(picture - scaled).max() <= 1
            assert found == pytest.approx(aspect)


def test_packed_and_plain_and_of_both_versions():
    plain = files.nifti(VOLUME)
    second = nibabel.Nifti2Image(VOLUME, np.eye(4)).to_bytes()
    for other in (
        files.nifti(VOLUME, packed=True),
        second,
        gzip.compress(second),
        gzip.compress(plain) + b"\0" * 50,
    ):
        np.testing.assert_array_equal(read(other)[0], read(plain)[0])


def test_scale_window_and_range():
    plain = read(files.nifti(VOLUME, cal_min=100, cal_max=600), window="header")[0]
    values = expected("axial", 4).astype(float)
    assert np.abs(plain - np.clip((values - 100) / 500, 0, 1) * 255).max() <= 1
    scaled = files.nifti(VOLUME, scl_slope=2, scl_inter=-1000)
    image = nibabel.Nifti1Image.from_bytes(scaled)
    units = expected("axial", 4) * float(image.dataobj.slope) + float(image.dataobj.inter)
    lung = read(scaled, window="lung")[0]
    assert (lung[units >= 150] == 255).all()
    assert (lung[units <= -1351] == 0).all()


def test_flat_and_long_volumes():
    assert read(files.nifti(VOLUME[:, :, 0]))[0].shape == (7, 6)
    many = np.stack([VOLUME, VOLUME[::-1]], -1)
    np.testing.assert_array_equal(read(files.nifti(many))[0], read(files.nifti(VOLUME))[0])
    flat = read(files.nifti(np.zeros((4, 4, 4), np.float32)))[0]
    assert not flat.any()


def test_limits_hold_before_unpacking():
    content = files.nifti(VOLUME, packed=True)
    with pytest.raises(BadSample, match="max_bytes"):
        read(content, most=500)
    with pytest.raises(BadSample, match="max_pixels"):
        read_nifti(content, "axial", 0, "range", True, 10, 10**7)
    bomb = gzip.compress(files.nifti(VOLUME) + bytes(50 << 20))  # what follows the volume stays packed
    np.testing.assert_array_equal(read(bomb)[0], read(content)[0])
    for broken in (
        content[:-30],
        content[:200],
        gzip.compress(b"no volume" * 100),
        files.nifti(VOLUME)[:500],
    ):
        with pytest.raises(BadSample):
            read(broken)


def test_what_has_no_grey_value_is_refused():
    with pytest.raises(BadSample, match="finite"):
        read(files.nifti(np.full((4, 4, 4), np.nan, np.float32)))
    with pytest.raises(BadSample, match="grey"):
        read(files.nifti(VOLUME.astype(np.complex64)))
