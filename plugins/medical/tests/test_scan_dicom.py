"""DICOM: windows against pydicom's own, orientation, frames, codings; and nothing of the header leaks."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from modalign import BadSample
from modalign_medical.scan import Scan
from modalign_medical.scan_dicom import read_dicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEG2000Lossless, RLELossless

sys.path.insert(0, str(Path(__file__).parent))
import absurd_files
import files


def read(content, frame="middle", window="header", orient=True):
    return read_dicom(content, frame, window, orient, 10**6, 10**7)


def pydicoms_own(content, index=0):
    """What pydicom's look-up and window functions give, from 0 to 255."""
    data = pydicom.dcmread(io.BytesIO(content))
    values = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data, index).astype(float)
    low, high = (
        v * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
        for v in (-(2**15), 2**15 - 1)
    )
    return (values - low) / (high - low) * 255


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("index", [0, 1])
def test_windows_are_pydicoms(function, index):
    content = files.dicom(
        WindowCenter=[40, 300],
        WindowWidth=[400, 1500],
        VOILUTFunction=function,
        RescaleSlope=1,
        RescaleIntercept=-1024,
    )
    picture, aspect = read(content, window=index)
    assert picture.dtype == np.uint8
    assert aspect == 1
    assert np.abs(picture - pydicoms_own(content, index)).max() <= 1
    assert len(np.unique(picture)) > 20


def test_a_named_window_is_in_hounsfield_units():
    content = files.dicom(RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1, WindowWidth=2)
    units = files.GREY * 2.0 - 1000
    lung = read(content, window="lung")[0]
    assert (lung[units <= -1350] == 0).all()
    assert (lung[units >= 150] == 255).all()
    middle = (units > -1300) & (units < 100)
    assert np.abs(lung[middle] - (units[middle] + 1350) / 1500 * 255).max() < 1.5
    np.testing.assert_array_equal(lung, read(content, window=(-600, 1500))[0])
    assert read(content, window="range")[0].min() == 0
    assert read(content, window="range")[0].max() == 255


def test_without_a_window_the_range_is_used_and_monochrome1_is_inverted():
    plain = read(files.dicom())[0]
    assert (plain.min(), plain.max()) == (0, 255)
    np.testing.assert_array_equal(read(files.dicom(PhotometricInterpretation="MONOCHROME1"))[0], 255 - plain)


@pytest.mark.parametrize("value", [-3000, 30000])
def test_padding_is_black_and_no_part_of_the_range(value):
    pixels = files.GREY.copy()
    pixels[:, :4] = value
    picture = read(files.dicom(pixels, PixelPaddingValue=value))[0]
    assert (picture[:, :4] == 0).all()
    known = files.GREY[:, 4:].astype(float)
    expected = (known - known.min()) / (known.max() - known.min()) * 255
    assert np.abs(picture[:, 4:] - expected).max() <= 1


@pytest.mark.parametrize(
    ("frame", "index"),
    [("first", 0), ("middle", 2), ("last", 4), (3, 3), (-2, 3), (99, 4), (0.3, 1), (1.0, 4)],
)
def test_a_frame_of_several(frame, index):
    frames = np.stack([np.roll(files.GREY, i, 1) for i in range(5)])
    np.testing.assert_array_equal(
        read(files.dicom(frames), frame, (1000, 1000))[0],
        read(files.dicom(frames[index]), window=(1000, 1000))[0],
    )


def test_what_a_frame_says_goes_before_what_the_file_says():
    frames = np.stack([files.GREY, files.GREY])
    groups = []
    for centre in (200, 900):
        group, window, scale = Dataset(), Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = centre, 300
        scale.RescaleSlope, scale.RescaleIntercept = 1, 100
        group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [window], [scale]
        groups.append(group)
    content = files.dicom(frames, PerFrameFunctionalGroupsSequence=groups, WindowCenter=1, WindowWidth=2)
    for index, centre in enumerate((200, 900)):
        expected = read(files.dicom(RescaleSlope=1, RescaleIntercept=100), window=(centre, 300))[0]
        np.testing.assert_array_equal(read(content, index)[0], expected)


LPH = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


@pytest.mark.parametrize("hung", ["LP", "LF", "PF"], ids=["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("mirror", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize("letters", [False, True])
def test_scans_hang_alike_however_they_were_stored(hung, turned, mirror, letters):
    opposite = dict(zip("LRPAHF", "RLAPFH", strict=True))
    stored, row, column = files.GREY, hung[0], hung[1]
    if turned:
        stored, row, column = stored.T, column, row
    if mirror[0] < 0:
        stored, row = stored[:, ::-1], opposite[row]
    if mirror[1] < 0:
        stored, column = stored[::-1], opposite[column]
    where = (
        {"PatientOrientation": [row, column]}
        if letters
        else {"ImageOrientationPatient": [*LPH[row], *LPH[column]]}
    )
    content = files.dicom(np.ascontiguousarray(stored), PixelSpacing=[1, 2] if turned else [2, 1], **where)
    picture, aspect = read(content)
    np.testing.assert_array_equal(picture, read(files.dicom())[0])
    assert aspect == pytest.approx(2)
    untouched, aspect = read(content, orient=False)
    np.testing.assert_array_equal(untouched, read(files.dicom(np.ascontiguousarray(stored)))[0])


@pytest.mark.parametrize("where", [[0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0]])
def test_nonsense_orientation_turns_nothing(where):
    np.testing.assert_array_equal(read(files.dicom(ImageOrientationPatient=where))[0], read(files.dicom())[0])


def test_other_codings_hold_the_same_picture():
    plain = read(files.dicom())[0]
    np.testing.assert_array_equal(read(files.dicom(syntax=RLELossless))[0], plain)
    deflated = files.with_syntax(
        files.dicom(), "1.2.840.10008.1.2.1.99", lambda c: absurd_files.deflate(absurd_files.body(c))
    )
    np.testing.assert_array_equal(read(deflated)[0], plain)
    if absurd_files.can_compress():
        whole = files.GREY.astype(np.uint16)
        np.testing.assert_array_equal(read(files.dicom(whole, syntax=JPEG2000Lossless))[0], plain)


def test_colours_and_palettes():
    colour = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    np.testing.assert_array_equal(read(files.dicom(colour, SamplesPerPixel=3))[0], colour)
    table = np.arange(256, dtype=np.uint8)
    lookup = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in (("Red", table), ("Green", 255 - table), ("Blue", 0 * table)):
        lookup[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        lookup[f"{name}PaletteColorLookupTableData"] = values.tobytes()
    stored = np.arange(72, dtype=np.uint8).reshape(8, 9)
    picture = read(files.dicom(stored, **lookup))[0]
    np.testing.assert_array_equal(picture, np.stack([stored, 255 - stored, 0 * stored], 2))


def test_large_and_lying_pictures_are_refused_before_they_are_unpacked():
    with pytest.raises(BadSample, match="max_pixels"):
        read_dicom(files.dicom(), "first", "header", True, 100, 10**7)
    with pytest.raises(BadSample, match="unpacks to more"):
        read(absurd_files.deflated(20 << 20))
    with pytest.raises(BadSample, match="run-length"):
        read(absurd_files.run_length(64 << 20))
    if absurd_files.can_compress():
        whole = files.dicom(files.GREY.astype(np.uint16), syntax=JPEG2000Lossless)
        data = pydicom.dcmread(io.BytesIO(whole))
        data.Rows, data.Columns = 23, 32
        file = io.BytesIO()
        data.save_as(file)
        with pytest.raises(BadSample, match="another size"):
            read(file.getvalue())


def test_nothing_of_the_header_is_left(tmp_path, capfd):
    path = tmp_path / f"{files.SECRET}.dcm"
    path.write_bytes(files.dicom()[:-900])
    for value in (path, path.read_bytes(), tmp_path / f"{files.SECRET}.missing"):
        with pytest.raises(BadSample) as caught:
            Scan(16).read(value)
        assert files.SECRET not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
    item = Scan(16).read(files.dicom())
    assert item.shape == (1, 16, 16)
    assert files.SECRET.encode() not in Scan(16).preview(item)[1]
    assert capfd.readouterr() == ("", "")
