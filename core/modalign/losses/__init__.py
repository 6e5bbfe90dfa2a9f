"""Losses: plain ``nn.Module`` objectives over a batch of embeddings."""

from .alignment import Alignment
from .cwcl import CWCL
from .dcl import DCL
from .gram import GRAM
from .infonce import InfoNCE
from .nt_xent import NTXent
from .siglip import SigLIP
from .supcon import SupCon
from .symile import Symile
from .triangle import Triangle
from .uniformity import Uniformity

__all__ = [
    "CWCL",
    "DCL",
    "GRAM",
    "Alignment",
    "InfoNCE",
    "NTXent",
    "SigLIP",
    "SupCon",
    "Symile",
    "Triangle",
    "Uniformity",
]
