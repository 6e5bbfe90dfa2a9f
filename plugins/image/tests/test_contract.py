"""The contract every plugin keeps; hf-image on a tiny model."""

import tempfile
from functools import cache

import torch
import transformers
from modalign.testing import parametrize_checks
from modalign_image.hf_image import HFImage

torch.set_num_threads(1)
FOLDER = tempfile.TemporaryDirectory()


@cache
def saved() -> str:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.Dinov2Config(image_size=16, patch_size=8, **sizes)
    transformers.Dinov2Model(config).save_pretrained(FOLDER.name)
    return FOLDER.name


@parametrize_checks("modalign-image", instances={"hf-image": lambda: HFImage(saved(), size=16)})
def test_contract(check):
    check()
