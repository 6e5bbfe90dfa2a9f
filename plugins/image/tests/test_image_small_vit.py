"""small-vit: shapes, independence, gradients, and that it learns real digits."""

import numpy as np
import pytest
import torch
from modalign import UserError
from modalign_image.modality import Image
from modalign_image.small_vit import SmallViT
from PIL import Image as Pillow
from torch.nn import functional as F

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("size", "patch", "width"), [(8, 2, 16), (16, 4, 24), (32, 8, 64), (24, 8, 40), (64, 16, 32)]
)
@torch.no_grad()
def test_one_token_per_patch_and_rows_alone(size, patch, width):
    torch.manual_seed(0)
    encoder = SmallViT(size, patch, width, layers=2).eval()
    modality = Image(**encoder.modality_options())
    pixels = modality.collate(modality.example(4))["pixels"]
    features = encoder({"pixels": pixels})
    assert features.tokens.shape == (4, (size // patch) ** 2, width)
    assert features.mask.all()
    for i in range(4):
        alone = encoder({"pixels": pixels[i : i + 1]}).tokens[0]
        torch.testing.assert_close(features.tokens[i], alone, atol=1e-5, rtol=1e-5)


def test_gradient_reaches_every_parameter_and_every_patch():
    encoder = SmallViT(16, 4, 16, layers=2, heads=2, dropout=0.1)
    pixels = torch.rand(3, 3, 16, 16, requires_grad=True)
    tokens = encoder({"pixels": pixels}).tokens
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert (pixels.grad.abs().sum(1) > 0).all()


def test_tokens_know_where_they_are():
    encoder = SmallViT(16, 4, 16).eval()
    flat = encoder({"pixels": torch.full((1, 3, 16, 16), 0.5)}).tokens[0]
    inner = flat.view(4, 4, 16)[1:3, 1:3].reshape(4, 16)
    assert torch.pdist(inner).min() > 1e-3


@pytest.mark.parametrize(
    "bad", [{"patch": 3}, {"patch": 1}, {"size": 20}, {"size": 4}, {"width": 36}, {"heads": 3}]
)
def test_sizes_that_do_not_fit_are_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        SmallViT(**bad)


def test_pictures_of_another_size_are_refused():
    with pytest.raises(UserError, match="size 16"):
        SmallViT(16, 4, 16)({"pixels": torch.rand(1, 3, 32, 32)})


def test_it_learns_handwritten_digits():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    torch.manual_seed(0)
    encoder, head = SmallViT(16, 4, 48, layers=2), torch.nn.Linear(48, 10)
    grey = [np.asarray(Pillow.fromarray(d.astype(np.uint8) * 15).resize((16, 16))) for d in digits.images]
    pixels = (
        torch.from_numpy(np.stack(grey)).float().div(255).unsqueeze(1).expand(-1, 3, -1, -1)
    )  # (N, 3, 16, 16)
    labels = torch.from_numpy(digits.target)
    order = torch.randperm(len(labels))
    train, test = order[:1400], order[1400:]
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=2e-3)

    def logits(rows):
        return head(encoder({"pixels": pixels[rows]}).tokens.mean(1))

    for _ in range(4):
        for rows in train[torch.randperm(1400)].split(50):
            optimiser.zero_grad()
            F.cross_entropy(logits(rows), labels[rows]).backward()
            optimiser.step()
    with torch.no_grad():
        assert (logits(test).argmax(1) == labels[test]).float().mean() > 0.9
