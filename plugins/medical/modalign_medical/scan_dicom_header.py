"""What is read of a DICOM header, frame by frame: nothing of the patient, the study or the institution."""

from __future__ import annotations

import math
from typing import Any

from .scan_view import direction

TAGS = [
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "ImageOrientationPatient", "PatientOrientation",
    "PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
]  # fmt: skip
"""All that is read of the header: nothing of the patient, the study or the institution."""


class Header:
    """Header values of one frame: its own, else those of all frames, else those of the file."""

    def __init__(self, head: Any, index: int) -> None:
        own, shared = head.get("PerFrameFunctionalGroupsSequence"), head.get("SharedFunctionalGroupsSequence")
        groups = [own[index]] if own and index < len(own) else []
        groups += [shared[0]] if shared else []
        self.places = [
            item[0] for group in groups for item in (e.value for e in group if e.VR == "SQ") if item
        ]
        self.places.append(head)

    def get(self, keyword: str) -> Any:
        return next(
            (p[keyword].value for p in self.places if keyword in p and p[keyword].value is not None), None
        )

    def holder(self, keyword: str) -> Any:
        return next((p for p in self.places if p.get(keyword)), None)

    def numbers(self, keyword: str) -> list[float]:
        """Its finite values; none if it is missing."""
        value = self.get(keyword)
        values = [] if value is None else [value] if isinstance(value, str | int | float) else list(value)
        return [float(v) for v in values if math.isfinite(float(v))]


def directions(found: Header) -> tuple[Any, Any]:
    cosines = found.numbers("ImageOrientationPatient")
    if len(cosines) == 6:
        return cosines[:3], cosines[3:]
    letters = found.get("PatientOrientation")
    if letters is not None and not isinstance(letters, str) and len(letters) == 2:
        return direction(letters[0]), direction(letters[1])
    return (0, 0, 0), (0, 0, 0)


def aspect_of(found: Header) -> float:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        values = found.numbers(keyword)
        if len(values) == 2 and min(values) > 0 and 0.05 < values[0] / values[1] < 20:
            return values[0] / values[1]
    return 1.0
