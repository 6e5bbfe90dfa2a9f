"""Checks of an encoder: features, independence of rows, weights, fingerprint."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modalign.contracts import Encoder, Features, Modality

from .tools import expect, near, same, same_batch, seeded, without_gradient

Make = Callable[[], Encoder]


def check_encoder_features_have_the_right_form(make: Make, modality: Modality) -> None:
    """Tokens ``(N, T, width)`` floating, mask ``(N, T)`` bool, a real and finite token in every row."""
    encoder = make().eval()
    expect(
        encoder.modality == modality.name,
        f"the encoder reads {encoder.modality!r} and was given {modality.name!r}",
    )
    for n in (1, 4):
        features = _features(encoder, modality, n)
        expect(isinstance(features, Features), f"forward gave {type(features).__name__}, not Features")
        tokens, mask = features.tokens, features.mask
        expect(
            tokens.dim() == 3 and len(tokens) == n and tokens.shape[2] == encoder.width,
            f"tokens have shape {tuple(tokens.shape)}, expected ({n}, T, {encoder.width})",
        )
        expect(tokens.is_floating_point(), f"tokens are {tokens.dtype}, expected a floating type")
        expect(mask.dtype == torch.bool, f"mask is {mask.dtype}, expected bool")
        expect(
            mask.shape == tokens.shape[:2],
            f"mask has shape {tuple(mask.shape)}, expected {tuple(tokens.shape[:2])}",
        )
        expect(bool(mask.any(1).all()), "a row has no real token")
        expect(bool(tokens[mask].isfinite().all()), "a real token is not finite")


def check_encoder_rows_are_independent(make: Make, modality: Modality) -> None:
    """An item alone and among others, so padded, gives the same real tokens."""
    encoder = make().eval()
    items = modality.example(6)
    together = _encode(encoder, modality, items)
    for i, item in enumerate(items):
        alone = _encode(encoder, modality, [item])
        a, b = alone.tokens[0][alone.mask[0]], together.tokens[i][together.mask[i]]  # (t, W) each
        expect(len(a) == len(b), f"item {i} has {len(a)} real tokens alone and {len(b)} in a batch of 6")
        expect(
            near(b, a),
            f"item {i} alone and in a batch of 6 differ by {float((a - b).abs().max()):.2g}; "
            "is padding masked everywhere?",
        )


def check_encoder_eval_is_deterministic(make: Make, modality: Modality) -> None:
    """In ``eval`` mode the same batch gives the same features, whatever the global generators."""
    encoder = make().eval()
    found = []
    for noise in (1, 2):
        with seeded(noise):
            found.append(_features(encoder, modality, 3))
    expect(_same_features(*found), "the same batch gave two results in eval mode")


def check_encoder_leaves_its_batch_alone(make: Make, modality: Modality) -> None:
    """The batch is the same after ``forward``."""
    batch = modality.collate(modality.example(3))
    before = {k: v.clone() for k, v in batch.items()}
    with torch.no_grad():
        make().eval()(batch)
    expect(same_batch(batch, before), "forward changed the batch it was given")


def check_encoder_state_dict_round_trips(make: Make, modality: Modality) -> None:
    """Loaded with another's weights it is the other: same features, same fingerprint."""
    made = []
    for noise in (1, 2):
        with seeded(noise):
            made.append(make().eval())
    one, two = made
    two.load_state_dict(one.state_dict())
    found = []
    for encoder in made:
        with seeded(0):
            found.append(_features(encoder, modality, 3))
    expect(
        _same_features(*found),
        "with the same state dict two instances differ: something learnt or drawn is not in it",
    )
    expect(one.fingerprint() == two.fingerprint(), "equal weights have different fingerprints")


def check_encoder_fingerprint_follows_its_weights(make: Make, modality: Modality) -> None:
    """It changes with a weight and with nothing else."""
    encoder = make().eval()
    before = encoder.fingerprint()
    _features(encoder, modality, 2)
    encoder.train().eval().requires_grad_(False)
    expect(encoder.fingerprint() == before, "the fingerprint changed though no weight did")
    tensors = [(name, t) for name, t in encoder.state_dict().items() if t.is_floating_point() and t.numel()]
    some = {tensors[i][0]: tensors[i][1] for i in (0, len(tensors) // 2, -1)} if tensors else {}
    for name, tensor in some.items():
        kept = tensor.clone()
        tensor.view(-1)[0] += 1
        expect(encoder.fingerprint() != before, f"{name} changed and the fingerprint did not")
        tensor.copy_(kept)
    expect(encoder.fingerprint() == before, "the same weights as before have another fingerprint")


def check_encoder_gradient_reaches_its_parameters(make: Make, modality: Modality) -> None:
    """Every parameter with ``requires_grad`` gets a finite gradient from the real tokens."""
    encoder = make().eval()  # no dropped layers: they would hide parameters by chance
    if not any(p.requires_grad for p in encoder.parameters()):
        return
    features = encoder(modality.collate(modality.example(4)))
    real = features.tokens[features.mask]  # (t, W)
    with seeded(0):
        weights = torch.randn(real.shape).to(real)  # (t, W)
    (real * weights).sum().backward()
    missed = without_gradient(encoder)
    expect(not missed, f"no finite gradient reaches {', '.join(missed[:5])}; remove or freeze what is unused")


def _encode(encoder: Encoder, modality: Modality, items: list) -> Features:
    with torch.no_grad():
        return encoder(modality.collate(items))


def _features(encoder: Encoder, modality: Modality, n: int) -> Features:
    return _encode(encoder, modality, modality.example(n))


def _same_features(a: Features, b: Features) -> bool:
    def real(features: Features) -> Tensor:
        return features.tokens[features.mask]  # (t, W)

    return same(a.mask, b.mask) and same(real(a), real(b))


CHECKS: tuple[Callable[[Make, Modality], None], ...] = (
    check_encoder_features_have_the_right_form,
    check_encoder_rows_are_independent,
    check_encoder_eval_is_deterministic,
    check_encoder_leaves_its_batch_alone,
    check_encoder_state_dict_round_trips,
    check_encoder_fingerprint_follows_its_weights,
    check_encoder_gradient_reaches_its_parameters,
)
