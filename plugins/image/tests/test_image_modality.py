"""The image modality: every usual file and mode, and nothing but BadSample for the rest."""

import contextlib
import io
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import BadSample
from modalign_image.modality import Image
from PIL import Image as Pillow

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow on damaged metadata
SIZE = 16
IMAGE = Image(SIZE, resize="squash")
AXIS = np.linspace(0, 255, SIZE).astype(np.uint8)
RAMP = np.stack([np.tile(AXIS, (SIZE, 1)), np.tile(AXIS[:, None], (1, SIZE)), np.full((SIZE, SIZE), 90)], 2)
RAMP = RAMP.astype(np.uint8)  # (S, S, 3): red to the right, green downwards
PICTURE = Pillow.fromarray(RAMP)
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "JPEG2000"]


def encode(picture, form="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def array(item):
    return item.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("form", FORMATS)
def test_formats_survive_the_round_trip(form, tmp_path):
    data = encode(PICTURE, form)
    (tmp_path / "a").write_bytes(data)
    item = IMAGE.read(data)
    assert item.dtype == torch.uint8
    assert item.shape == (3, SIZE, SIZE)
    assert np.abs(array(item) - RAMP).mean() < 8
    for other in (tmp_path / "a", str(tmp_path / "a"), {"bytes": data, "path": None}, bytearray(data)):
        assert torch.equal(IMAGE.read(other), item)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_are_exact(form):
    np.testing.assert_array_equal(array(IMAGE.read(encode(PICTURE, form))), RAMP)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_modes_become_rgb(mode):
    grey = np.tile(AXIS, (SIZE, 1))
    if mode == "I;16":
        picture, form = Pillow.fromarray(grey.astype(np.uint16) * 257), "PNG"
    elif mode in ("I", "F"):
        picture, form = Pillow.fromarray(grey.astype(np.int32 if mode == "I" else np.float32)), "TIFF"
    elif mode == "P":
        picture, form = Pillow.fromarray(grey).quantize(64), "TIFF"
    else:
        picture, form = Pillow.fromarray(grey).convert("RGB").convert(mode), "TIFF"
    tolerance = 128 if mode == "1" else 8
    expected = np.repeat(grey[..., None], 3, 2)
    assert np.abs(array(IMAGE.read(encode(picture, form))) - expected).mean() < tolerance


def test_sixteen_bits_are_scaled_and_not_clipped():
    deep = np.full((SIZE, SIZE), 30000, np.uint16)
    assert abs(int(IMAGE.read(encode(Pillow.fromarray(deep)))[0, 0, 0]) - 30000 / 257) <= 1
    unit = np.tile(np.linspace(0, 1, SIZE, dtype=np.float32), (SIZE, 1))
    assert IMAGE.read(encode(Pillow.fromarray(unit), "TIFF"))[0, 0, -1] == 255
    signed = Pillow.fromarray(unit * 2e6 - 1e6)
    assert IMAGE.read(encode(signed, "TIFF"))[0, 0, [0, -1]].tolist() == [0, 255]
    with pytest.raises(BadSample, match="finite"):
        IMAGE.read(encode(Pillow.fromarray(unit * np.float32("nan")), "TIFF"))


def test_transparency_lies_on_white():
    clear = Pillow.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (IMAGE.read(encode(clear)) == 255).all()
    half = IMAGE.read(encode(Pillow.new("RGBA", (8, 8), (0, 0, 0, 128))))
    assert (half.int() - 127).abs().max() <= 1
    palette = Pillow.new("P", (8, 8), 3)
    palette.putpalette([0, 0, 0] * 256)
    assert (IMAGE.read(encode(palette, transparency=3)) == 255).all()
    grey = Pillow.new("LA", (8, 8), (0, 0))
    assert (IMAGE.read(encode(grey)) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    stored = {  # how a camera that writes this tag stores the upright picture
        1: PICTURE,
        2: PICTURE.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT),
        3: PICTURE.transpose(Pillow.Transpose.ROTATE_180),
        4: PICTURE.transpose(Pillow.Transpose.FLIP_TOP_BOTTOM),
        5: PICTURE.transpose(Pillow.Transpose.TRANSPOSE),
        6: PICTURE.transpose(Pillow.Transpose.ROTATE_90),
        7: PICTURE.transpose(Pillow.Transpose.TRANSVERSE),
        8: PICTURE.transpose(Pillow.Transpose.ROTATE_270),
    }[orientation]
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(array(IMAGE.read(encode(stored, exif=exif))), RAMP)


def test_crop_pad_and_squash():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255  # black, white, black
    data = encode(Pillow.fromarray(wide))
    assert (Image(10, "crop").read(data) == 255).all()
    squashed = Image(10, "squash").read(data)
    assert squashed[0, 5, 0] == 0
    assert squashed[0, 5, 5] == 255
    padded = Image(30, "pad").read(data)
    assert torch.equal(padded[:, 10:20].permute(1, 2, 0), torch.from_numpy(wide))
    assert (padded[:, :10] == 255).all()
    assert (padded[:, 20:] == 255).all()


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (7, 13), (300, 200)])
def test_any_shape_gives_the_square(resize, shape):
    item = Image(12, resize).read(encode(Pillow.new("RGB", shape, (9, 9, 9))))
    assert item.shape == (3, 12, 12)


def test_large_jpegs_stay_close_to_a_full_decode():
    big = PICTURE.resize((1024, 1024), Pillow.Resampling.BICUBIC)
    data = encode(big, "JPEG", quality=95)
    full = np.asarray(Pillow.open(io.BytesIO(data)).resize((SIZE, SIZE), Pillow.Resampling.BICUBIC)).astype(
        int
    )
    assert np.abs(array(IMAGE.read(data)) - full).mean() < 2


def test_oversized_pictures_are_refused_before_unpacking():
    png = encode(PICTURE)
    for side in (9_000, 60_000):  # above our limit, above Pillow's own
        header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
        with pytest.raises(BadSample, match="pixels"):
            IMAGE.read(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])
    with pytest.raises(BadSample, match="max_pixels"):
        Image(8, max_pixels=100).read(encode(PICTURE))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_truncated_files_are_bad_samples(form):
    data = encode(PICTURE.resize((64, 64)), form)
    for share in (0.1, 0.5, 0.8):
        with pytest.raises(BadSample):
            IMAGE.read(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    "value", [b"", b"not a picture", None, 7, [1, 2], {}, {"bytes": None, "path": None}, "no.png"]
)
def test_what_is_no_picture_is_a_bad_sample(value):
    with pytest.raises(BadSample):
        IMAGE.read(value)


def test_postscript_is_not_run():
    with pytest.raises(BadSample, match="unknown"):
        IMAGE.read(encode(PICTURE, "EPS"))


FILES = [encode(PICTURE, form) for form in FORMATS] + [
    encode(PICTURE.convert(m), "TIFF") for m in ("P", "CMYK", "F")
]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damage_gives_a_picture_or_a_bad_sample(data):
    damaged = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(0, 12))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        item = IMAGE.read(damaged)
    except BadSample:
        return
    assert item.shape == (3, SIZE, SIZE)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0"]),
)
@settings(max_examples=100, deadline=None)
def test_random_bytes_give_nothing_but_bad_samples(data, signature):
    with contextlib.suppress(BadSample):
        IMAGE.read(signature + data)


@given(st.integers(1, 6), st.integers(0, 1000), st.integers(4, 40))
@settings(max_examples=20, deadline=None)
def test_batches_and_examples(n, seed, size):
    modality = Image(size)
    items = modality.example(n, seed)
    again = pickle.loads(pickle.dumps(modality)).example(n, seed)
    assert all(torch.equal(a, b) for a, b in zip(items, again, strict=True))
    pixels = modality.collate(items)["pixels"]
    assert pixels.shape == (n, 3, size, size)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, torch.stack(items) / 255)
    assert 0 <= pixels.min() <= pixels.max() <= 1


def test_examples_differ():
    items = Image(32).example(5)
    assert all((items[i].float() - items[j].float()).abs().mean() > 5 for i in range(5) for j in range(i))


def test_augment_draws_from_the_generator_alone():
    batch = IMAGE.collate(IMAGE.example(4))
    before = batch["pixels"].clone()
    state = torch.get_rng_state()
    one, same = (IMAGE.augment(batch, torch.Generator().manual_seed(5))["pixels"] for _ in range(2))
    other = IMAGE.augment(batch, torch.Generator().manual_seed(6))["pixels"]
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, batch["pixels"])
    assert torch.equal(state, torch.get_rng_state())
    assert 0 <= one.min() <= one.max() <= 1
    assert (one - before).abs().mean() < 0.25


def test_augment_mirrors_only_when_told():
    ramp = {"pixels": torch.linspace(0, 1, SIZE).expand(64, 3, SIZE, SIZE).contiguous()}
    for flip in (False, True):
        seen = Image(SIZE, flip=flip).augment(ramp, torch.Generator().manual_seed(0))["pixels"]
        mirrored = seen[:, 0, 0, 0] > seen[:, 0, 0, -1]
        assert 16 <= mirrored.sum() <= 48 if flip else not mirrored.any()
        assert (seen.diff(dim=2).abs() < 1e-5).all()  # rows stay equal: no rotation


def test_augment_of_nothing_changes_nothing():
    still = Image(SIZE, zoom=0, jitter=0)
    batch = still.collate(still.example(3))
    torch.testing.assert_close(still.augment(batch, torch.Generator())["pixels"], batch["pixels"])


@pytest.mark.parametrize("bad", [{"size": 0}, {"resize": "stretch"}, {"zoom": 1.0}, {"jitter": -0.1}])
def test_arguments_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Image(**bad)


def test_declarations_import_nothing_heavy():
    code = (
        "import modalign_image, sys; modalign_image.register_encoders();"
        "heavy = ('torch', 'transformers', 'numpy', 'PIL');"
        "sys.exit(str([m for m in heavy if m in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_a_preview_is_the_picture_that_encoders_see():
    for item in Image(SIZE).example(3):
        kind, content = Image(SIZE).preview(item)
        assert kind == "image/png"
        assert torch.equal(Image(SIZE).read(content), item)
