"""Losses: plain ``nn.Module`` objectives over a batch of embeddings."""

from .alignment import Alignment
from .cwcl import CWCL
from .dcl import DCL
from .gram import GRAM
from .infonce import InfoNCE
from .late_interaction import LateInteraction
from .momentum import Momentum
from .multiview import Multiview
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
    "LateInteraction",
    "Momentum",
    "Multiview",
    "NTXent",
    "SigLIP",
    "SupCon",
    "Symile",
    "Triangle",
    "Uniformity",
]
