"""The image modality: picture files as RGB tensors of one size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from modalign.contracts import BadSample, Batch, Modality, file_bytes
from PIL import Image as Pillow
from torch import Generator, Tensor
from torch.nn import functional as F

from .decode import decode

RESIZES = ("crop", "pad", "squash")


class Image(Modality):
    """Pictures (PNG, JPEG, WebP, GIF, BMP, TIFF, …) as square RGB, bicubic with antialiasing.

    EXIF orientation is applied, transparency lies on white, 16-bit and float pictures are scaled.

    Inputs:
        size: side of the square, in pixels. Encoders ask for theirs.
        resize: ``crop`` the largest centred square; ``pad`` with white to a square (for pages,
            signs and whatever must stay whole); ``squash`` to a square.
        max_pixels: larger pictures are refused before they are unpacked.
        flip: ``augment`` mirrors half of the pictures; letters, digits and hands must not be.
        zoom: ``augment`` shows a window of at least ``1 - zoom`` of each side.
        jitter: ``augment`` changes brightness and contrast by up to this share.

    Raises:
        ValueError: if an argument is out of range.
    """

    name: ClassVar[str] = "image"

    def __init__(
        self,
        size: int = 224,
        resize: Literal["crop", "pad", "squash"] = "crop",
        max_pixels: int = 64_000_000,
        flip: bool = False,
        zoom: float = 0.15,
        jitter: float = 0.2,
    ) -> None:
        if resize not in RESIZES:
            raise ValueError(f"no resize {resize!r}; there are {', '.join(RESIZES)}")
        if size < 1 or max_pixels < 1 or not 0 <= zoom < 1 or not 0 <= jitter < 1:
            raise ValueError(
                f"size {size}, max_pixels {max_pixels} >= 1; zoom {zoom}, jitter {jitter} in [0, 1)"
            )
        self.size, self.resize, self.max_pixels = size, resize, max_pixels
        self.flip, self.zoom, self.jitter = flip, zoom, jitter

    def read(self, value: Any) -> Tensor:
        """A file, as path, ``bytes`` or ``{"bytes", "path"}`` -> ``(3, size, size)`` uint8.

        Raises:
            BadSample: if it is no picture, damaged, cut short or too large.
        """
        if isinstance(value, dict):  # how Hugging Face datasets store a picture
            value = value.get("bytes") or value.get("path")
        if value is None:
            raise BadSample("empty picture")
        image = decode(file_bytes(value), self.max_pixels, enough=2 * self.size)
        return torch.from_numpy(np.array(self._square(image))).permute(2, 0, 1).contiguous()  # (3, S, S)

    def collate(self, items: Sequence[Tensor]) -> Batch:
        """``N`` items -> ``pixels (N, 3, S, S)`` float32 in [0, 1]."""
        return {"pixels": torch.stack(list(items)).float() / 255}

    def example(self, n: int, seed: int = 0) -> list[Tensor]:
        """``n`` coloured discs on gradients, the same for one seed."""
        generator = torch.Generator().manual_seed(seed)
        axis = torch.linspace(0, 1, self.size)
        y, x = torch.meshgrid(axis, axis, indexing="ij")  # (S, S)
        items = []
        for _ in range(n):
            draw = torch.rand(12, generator=generator)
            corner, colour, slope = draw[0:3], draw[3:6], draw[6:8]
            ramp = (slope[0] * x + slope[1] * y) / 2  # (S, S)
            inside = (x - draw[8]) ** 2 + (y - draw[9]) ** 2 < (0.15 + 0.3 * draw[10]) ** 2  # (S, S)
            picture = torch.where(inside, colour.view(3, 1, 1), (corner.view(3, 1, 1) + ramp) / 2)
            items.append((picture * 255).round().to(torch.uint8))
        return items

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """A random window of each picture, stretched back, with another brightness and contrast."""
        pixels = batch["pixels"]  # (N, 3, S, S)
        n = len(pixels)
        draw = torch.rand(n, 7, generator=generator, device=generator.device).to(pixels)  # (N, 7)
        side = 1 - self.zoom * draw[:, 0:2]  # (N, 2) of the window
        centre = (1 - side) * (2 * draw[:, 2:4] - 1)  # (N, 2), the window stays inside
        if self.flip:
            mirror = torch.where(draw[:, 4] < 0.5, -1.0, 1.0).to(side)  # (N,)
            side = torch.stack([side[:, 0] * mirror, side[:, 1]], 1)
        theta = torch.cat([torch.diag_embed(side), centre.unsqueeze(2)], 2)  # (N, 2, 3)
        grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)  # (N, S, S, 2)
        seen = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)  # (N, 3, S, S)
        light = 1 + self.jitter * (2 * draw[:, 5:7].view(n, 2, 1, 1, 1) - 1)  # (N, 2, 1, 1, 1)
        mean = seen.mean((1, 2, 3), keepdim=True)  # (N, 1, 1, 1)
        seen = ((seen - mean) * light[:, 0] + mean) * light[:, 1]  # (N, 3, S, S)
        return {**batch, "pixels": seen.clamp(0, 1)}

    def preview(self, item: Tensor) -> tuple[str, bytes]:
        """The picture as encoders see it: a PNG."""
        file = io.BytesIO()
        Pillow.fromarray(item.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")  # (S, S, 3)
        return "image/png", file.getvalue()

    def _square(self, image: Pillow.Image) -> Pillow.Image:
        size, (w, h) = self.size, image.size
        bicubic = Pillow.Resampling.BICUBIC
        if self.resize == "squash":
            return image.resize((size, size), bicubic)
        if self.resize == "crop":
            side = min(w, h)
            left, top = (w - side) / 2, (h - side) / 2
            return image.resize((size, size), bicubic, box=(left, top, left + side, top + side))
        scale = size / max(w, h)
        inner = (max(round(w * scale), 1), max(round(h * scale), 1))
        page = Pillow.new("RGB", (size, size), "white")
        page.paste(image.resize(inner, bicubic), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return page
