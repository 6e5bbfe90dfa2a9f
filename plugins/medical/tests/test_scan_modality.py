"""The scan modality: pictures, sizes, batches, augmentation, and the image plugin's encoder on them."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import BadSample, UserError
from modalign_medical.scan import Scan
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parent))
import files

torch.set_num_threads(1)
GREY = np.tile(np.linspace(0, 250, 32).astype(np.uint8), (24, 1))  # (24, 32), brighter to the right
SQUASH = Scan(16, resize="squash")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP"])
def test_pictures_are_read_from_bytes_and_paths(form, tmp_path):
    content = files.picture(GREY, form)
    (tmp_path / "心.x").write_bytes(content)
    item = SQUASH.read(content)
    assert item.dtype == torch.uint8
    assert item.shape == (1, 16, 16)
    expected = np.asarray(Pillow.fromarray(GREY).resize((16, 16), Pillow.Resampling.BICUBIC)).astype(int)
    assert np.abs(item[0].numpy() - expected).mean() < 3
    for other in (
        tmp_path / "心.x",
        str(tmp_path / "心.x"),
        {"bytes": content, "path": None},
        bytearray(content),
    ):
        assert torch.equal(SQUASH.read(other), item)


def test_grey_in_colour_is_grey_and_colour_stays():
    three = np.stack([GREY] * 3, -1)
    assert torch.equal(SQUASH.read(files.picture(three)), SQUASH.read(files.picture(GREY)))
    three[:4, :4, 0] = 255
    assert SQUASH.read(files.picture(three)).shape == (3, 16, 16)


def test_sixteen_bits_use_their_range_or_the_window():
    deep = GREY.astype(np.uint16) * 4 + 300  # 12 bits of 16, as detectors give
    item = SQUASH.read(files.picture(deep))[0].int()
    assert item.min() < 12
    assert item.max() > 243
    windowed = Scan(16, resize="squash", window=[800, 200]).read(files.picture(deep))[0]
    assert windowed[:, :5].max() == 0
    assert windowed[:, -5:].min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's numbers of what the camera did
    picture = Pillow.fromarray(GREY)
    stored = picture if orientation == 1 else picture.transpose(Pillow.Transpose(turns[orientation]))
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = files.SECRET
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    item = SQUASH.read(file.getvalue())
    assert torch.equal(item, SQUASH.read(files.picture(GREY)))
    assert files.SECRET.encode() not in SQUASH.preview(item)[1]


def test_pad_crop_and_squash_keep_their_promises():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    content = files.picture(wide)
    assert (Scan(10, "crop").read(content) == 255).all()
    squashed = Scan(10, "squash").read(content)[0]
    assert squashed[5, 0] == 0
    assert squashed[5, 5] == 255
    padded = Scan(30, "pad").read(content)[0]
    assert torch.equal(padded[10:20], torch.from_numpy(wide))
    assert not padded[:10].any()
    assert not padded[20:].any()


@pytest.mark.parametrize("resize", ["pad", "crop", "squash"])
def test_pixels_that_are_not_square(resize):
    """A square of 20 mm, whose pixels are 1 by 2 mm, is a square again."""
    box = np.zeros((20, 40), np.int16)  # 40 mm by 40 mm
    box[5:15, 10:30] = 1000
    item = Scan(40, resize).read(files.dicom(box, PixelSpacing=[2, 1]))[0]
    bright = (item > 127).nonzero()
    assert bright.amin(0).tolist() == [10, 10]
    assert bright.amax(0).tolist() == [29, 29]


def test_a_crop_is_square_in_millimetres():
    tall = np.zeros((30, 40), np.int16)  # 60 mm by 40 mm
    tall[10:20, 10:30] = 1000
    bright = (Scan(40, "crop").read(files.dicom(tall, PixelSpacing=[2, 1]))[0] > 127).nonzero()
    assert bright.amin(0).tolist() == [10, 10]
    assert bright.amax(0).tolist() == [29, 29]


@pytest.mark.parametrize("resize", ["pad", "crop", "squash"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (7, 13)])
def test_any_shape_gives_the_square(resize, shape):
    assert Scan(12, resize).read(files.picture(np.full(shape, 9, np.uint8))).shape == (1, 12, 12)
    assert Scan(12, resize).read(files.dicom(np.zeros(shape, np.int16), PixelSpacing=[15, 1])).shape == (
        1,
        12,
        12,
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"size": 0},
        {"resize": "stretch"},
        {"window": "lungs"},
        {"window": [40, 0]},
        {"window": [1, 2, 3]},
        {"window": -1},
        {"frame": "centre"},
        {"frame": 1.5},
        {"plane": "oblique"},
        {"shift": 1.0},
        {"turn": -1},
        {"max_bytes": 0},
    ],
    ids=str,
)
def test_arguments_out_of_range(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        Scan(**bad)


def test_batches_hold_grey_and_colour():
    colour = np.random.default_rng(0).integers(0, 255, (9, 9, 3)).astype(np.uint8)
    items = [SQUASH.read(files.picture(GREY)), SQUASH.read(files.picture(colour))]
    pixels = SQUASH.collate(items)["pixels"]
    assert pixels.shape == (2, 3, 16, 16)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels[0], items[0].expand(3, -1, -1) / 255)
    torch.testing.assert_close(pixels[1], items[1] / 255)


@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=15, deadline=None)
def test_augment_stays_small_and_draws_from_its_generator(seed, mirror):
    scan = Scan(32, mirror=mirror)
    batch = scan.collate(scan.example(3, seed))
    before = batch["pixels"].clone()
    one, same = (scan.augment(batch, torch.Generator().manual_seed(seed))["pixels"] for _ in range(2))
    assert torch.equal(one, same)
    assert torch.equal(batch["pixels"], before)
    assert 0 <= one.min() <= one.max() <= 1
    assert (one - before).abs().mean() < (1 if mirror else 0.25)


def test_augment_mirrors_only_when_told():
    ramp = {"pixels": torch.linspace(0.2, 0.8, 32).expand(64, 3, 32, 32).contiguous()}
    for mirror in (False, True):
        seen = Scan(32, mirror=mirror).augment(ramp, torch.Generator().manual_seed(0))["pixels"]
        turned = seen[:, 0, 8:24, 8].mean(1) > seen[:, 0, 8:24, 24].mean(1)
        assert 16 <= turned.sum() <= 48 if mirror else not turned.any()


def test_augment_of_nothing_changes_nothing():
    still = Scan(16, shift=0, turn=0, contrast=0)
    batch = still.collate(still.example(3))
    torch.testing.assert_close(
        still.augment(batch, torch.Generator())["pixels"], batch["pixels"], atol=1e-5, rtol=0
    )


def test_it_pickles_and_a_preview_is_what_encoders_see():
    scan = pickle.loads(pickle.dumps(Scan(16, "squash", window=[40, 400], frame=0.5)))
    assert (scan.window, scan.frame, scan.resize) == ((40.0, 400.0), 0.5, "squash")
    for item in scan.example(2):
        kind, content = scan.preview(item)
        assert kind == "image/png"
        assert torch.equal(scan.read(content), item)


def test_the_image_plugins_encoder_reads_scans():
    vit = pytest.importorskip("modalign_image.small_vit").SmallViT(16, 8, 16, layers=1)
    scan = Scan(**vit.modality_options())
    assert vit(scan.collate(scan.example(2))).tokens.shape == (2, 4, 16)


def test_pictures_too_large_are_refused_unread(tmp_path):
    with pytest.raises(BadSample, match="limit"):
        Scan(16, max_bytes=100).read(files.picture(GREY) + bytes(100))
    with pytest.raises(BadSample, match="max_pixels"):
        Scan(16, max_pixels=100).read(files.picture(GREY))
