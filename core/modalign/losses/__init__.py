"""Losses: plain ``nn.Module`` objectives over a batch of embeddings."""

from .cwcl import CWCL
from .dcl import DCL
from .infonce import InfoNCE
from .nt_xent import NTXent
from .siglip import SigLIP
from .supcon import SupCon
from .symile import Symile

__all__ = ["CWCL", "DCL", "InfoNCE", "NTXent", "SigLIP", "SupCon", "Symile"]
