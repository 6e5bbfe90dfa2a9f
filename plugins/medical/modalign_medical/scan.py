"""The scan modality: DICOM, NIfTI and picture files as grey or RGB tensors of one size."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from modalign import Modality, UserError
from modalign.contracts import Batch
from PIL import Image as Pillow
from torch import Generator, Tensor
from torch.nn import functional as F

from .files import content
from .scan_view import PLANES
from .scan_window import WINDOWS

RESIZES = ("pad", "crop", "squash")


class Scan(Modality):
    """X-rays, slices of CT and MR, ultrasound, slides: DICOM, NIfTI (``.nii``, ``.nii.gz``), PNG, JPEG, TIFF.

    Stored values become Hounsfield or other units (rescale slope and intercept, look-up tables), a
    window makes them grey, ``MONOCHROME1`` is inverted, and the slice is turned as radiologists hang
    it. A batch is the image plugin's, so that ``small-vit`` and ``hf-image`` read it too. Names,
    dates and every other header value are dropped; what is burnt into the pixels stays.

    Inputs:
        size: side of the square, in pixels. Encoders ask for theirs.
        resize: ``pad`` with black to a square; ``crop`` the largest centred one; ``squash``.
        window: ``header`` (the file's first, else the range of its values), a number (which of the
            file's windows), a name (``lung``, ``bone``, ``brain``, …, for CT), ``[centre, width]``, or
            ``range`` (darkest to brightest).
        frame: of several, or of a volume's slices: ``first``, ``middle``, ``last``, a number (from the
            feet, the back or the right; negative from the other end) or a share such as 0.3.
        plane: ``axial``, ``coronal`` or ``sagittal``, of volumes.
        orient: turn the picture by what the header says of the patient's position.
        max_pixels: larger pictures are refused before they are unpacked.
        max_bytes: larger files, and volumes that unpack to more, are refused.
        shift, turn, contrast: ``augment`` moves by up to this share of the side, turns by up to so
            many degrees, changes brightness and contrast by up to this share.
        mirror: ``augment`` mirrors half of the scans; a heart on the right is a finding.

    Raises:
        UserError: if an argument is out of range.
    """

    name: ClassVar[str] = "scan"

    def __init__(
        self,
        size: int = 224,
        resize: Literal["pad", "crop", "squash"] = "pad",
        window: str | int | Sequence[float] = "header",
        frame: str | int | float = "middle",
        plane: str = "axial",
        orient: bool = True,
        max_pixels: int = 40_000_000,
        max_bytes: int = 256 * 2**20,
        shift: float = 0.05,
        turn: float = 10.0,
        contrast: float = 0.15,
        mirror: bool = False,
    ) -> None:
        _one_of("resize", resize, RESIZES)
        _one_of("plane", plane, PLANES)
        if isinstance(frame, str):
            _one_of("frame", frame, ("first", "middle", "last"))
        elif isinstance(frame, float) and not 0 <= frame <= 1:
            raise UserError(f"scan: frame {frame} is no share from 0 to 1; a number of a frame has no point")
        if isinstance(window, str):
            _one_of("window", window, ("header", "range", *WINDOWS))
        elif isinstance(window, int):
            if window < 0:
                raise UserError(f"scan: window {window}; the file's windows count from 0")
        else:
            window = tuple(map(float, window))
            if len(window) != 2 or not all(map(math.isfinite, window)) or window[1] <= 0:
                raise UserError(f"scan: window {list(window)}; give [centre, width], the width above 0")
        if size < 1 or max_pixels < 1 or max_bytes < 1 or not 0 <= shift < 1 or not 0 <= contrast < 1:
            raise UserError(
                "scan: size, max_pixels, max_bytes must be 1 or more, shift and contrast in [0, 1)"
            )
        if not 0 <= turn <= 180:
            raise UserError(f"scan: turn is {turn}; use 0 to 180 degrees")
        self.size, self.resize, self.window, self.frame, self.plane = size, resize, window, frame, plane
        self.orient, self.max_pixels, self.max_bytes = orient, max_pixels, max_bytes
        self.shift, self.turn, self.contrast, self.mirror = shift, turn, contrast, mirror

    def read(self, value: Any) -> Tensor:
        """A file, as path, ``bytes`` or ``{"bytes", "path"}`` -> ``(1 or 3, size, size)`` uint8.

        Raises:
            BadSample: if it is of no known kind, damaged, cut short or too large.
        """
        data = content(value, self.max_bytes)
        picture, aspect = self._decoded(data)
        square = self._square(Pillow.fromarray(np.ascontiguousarray(picture)), aspect)  # (S, S) or (S, S, 3)
        pixels = torch.from_numpy(np.array(square))
        return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()

    def _decoded(self, data: bytes) -> tuple[np.ndarray, float]:
        # Imported where they are needed: a plan of PNGs need not wait for pydicom.
        from .scan_dicom import is_dicom, read_dicom
        from .scan_nifti import is_nifti, read_nifti
        from .scan_picture import read_picture

        if is_dicom(data):
            return read_dicom(data, self.frame, self.window, self.orient, self.max_pixels, self.max_bytes)
        if is_nifti(data):
            limits = (self.max_pixels, self.max_bytes)
            return read_nifti(data, self.plane, self.frame, self.window, self.orient, *limits)
        return read_picture(data, self.window, self.max_pixels, 2 * self.size), 1.0

    def collate(self, items: Sequence[Tensor]) -> Batch:
        """``N`` items -> ``pixels (N, 3, S, S)`` float32 in [0, 1], grey three times."""
        return {"pixels": torch.stack([item.expand(3, -1, -1) for item in items]).float() / 255}

    def example(self, n: int, seed: int = 0) -> list[Tensor]:
        """``n`` grey phantoms: a body, two organs and noise, the same for one seed."""
        generator = torch.Generator().manual_seed(seed)
        axis = torch.linspace(-1, 1, self.size)
        y, x = torch.meshgrid(axis, axis, indexing="ij")  # (S, S)
        items = []
        for _ in range(n):
            u = torch.rand(11, generator=generator)
            grey = 0.4 * ((x / (0.6 + 0.3 * u[0])) ** 2 + (y / (0.5 + 0.4 * u[1])) ** 2 < 1)  # (S, S)
            for i in (2, 5):
                at = (x - u[i] + 0.5) ** 2 + (y - u[i + 1] + 0.5) ** 2
                grey = torch.where(at < (0.1 + 0.3 * u[i + 2]) ** 2, u[i + 3], grey)
            grey = grey + 0.05 * torch.rand(self.size, self.size, generator=generator)
            items.append((grey.clamp(0, 1) * 255).round().to(torch.uint8).unsqueeze(0))
        return items

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """Each scan moved and turned a little, black coming in, with another brightness and contrast."""
        pixels = batch["pixels"]  # (N, 3, S, S)
        n = len(pixels)
        u = 2 * torch.rand(n, 6, generator=generator, device=generator.device).to(pixels) - 1  # (N, 6)
        angle = u[:, 0] * math.radians(self.turn)  # (N,)
        side = torch.where(u[:, 5] < 0, -1.0, 1.0) if self.mirror else torch.ones_like(angle)  # (N,)
        cos, sin = angle.cos(), angle.sin()
        theta = torch.stack([cos * side, -sin, sin * side, cos], 1).view(n, 2, 2)
        theta = torch.cat([theta, 2 * self.shift * u[:, 1:3].unsqueeze(2)], 2)  # (N, 2, 3)
        grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)  # (N, S, S, 2)
        seen = F.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)  # (N, 3, S, S)
        change = 1 + self.contrast * u[:, 3:5].view(n, 2, 1, 1, 1)  # (N, 2, 1, 1, 1)
        mean = seen.mean((1, 2, 3), keepdim=True)  # (N, 1, 1, 1)
        seen = ((seen - mean) * change[:, 0] + mean) * change[:, 1]  # (N, 3, S, S)
        return {**batch, "pixels": seen.clamp(0, 1)}

    def preview(self, item: Tensor) -> tuple[str, bytes]:
        """The scan as encoders see it: a PNG."""
        file = io.BytesIO()
        pixels = item[0] if len(item) == 1 else item.permute(1, 2, 0).contiguous()  # (S, S) or (S, S, 3)
        Pillow.fromarray(pixels.numpy()).save(file, "PNG")
        return "image/png", file.getvalue()

    def _square(self, image: Pillow.Image, aspect: float) -> Pillow.Image:
        """``size`` by ``size``; a pixel of the image is ``aspect`` times as high as wide."""
        size, bicubic = self.size, Pillow.Resampling.BICUBIC
        w, h = image.size
        if self.resize == "squash":
            return image.resize((size, size), bicubic)
        if self.resize == "crop":
            side = min(w, h * aspect)  # in widths of a pixel
            width, height = min(side, w), min(side / aspect, h)
            left, top = (w - width) / 2, (h - height) / 2
            return image.resize((size, size), bicubic, box=(left, top, left + width, top + height))
        scale = size / max(w, h * aspect)
        inner = (min(max(round(w * scale), 1), size), min(max(round(h * aspect * scale), 1), size))
        page = Pillow.new(image.mode, (size, size))
        page.paste(image.resize(inner, bicubic), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return page


def _one_of(what: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise UserError(f"scan: {what} is {given!r}; use one of {', '.join(known)}")
