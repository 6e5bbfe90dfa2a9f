"""The universal projection: published sizes, fusion, freezing, padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.projections import Universal
from torch import nn

torch.set_num_threads(1)
FUSIONS = ("add", "multiply", "concatenate", "attention")


def count(parameters):
    return sum(p.numel() for p in {id(p): p for p in parameters}.values())


def build(fusion="add", dim=16, width=16, **kwargs):
    torch.manual_seed(0)
    projection = Universal(dim, width=width, heads=2, hidden=32, fusion=fusion, **kwargs)
    for name in ("image", "text"):
        projection.add_modality(name, founder=True)
    projection.add_modality("audio", founder=False)
    return projection.eval()


def inputs(n=4, t=6, width=16, seed=1):
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(t) < torch.randint(1, t + 1, (n, 1), generator=g)
    return torch.randn(n, t, width, generator=g), mask


@pytest.mark.parametrize(
    ("preset", "dim", "shared", "founders", "later"),
    [("small", 256, 1_315_584, 42_118, 42_115), ("large", 768, 22_057_472, 1_536, 768)],
)
def test_published_sizes(preset, dim, shared, founders, later):
    projection = Universal(dim, preset=preset)
    assert count(projection.parameters()) == shared
    projection.add_modality("image", founder=True)
    projection.add_modality("text", founder=True)
    assert count(projection.parameters()) == shared + founders
    both = [*projection.modality_parameters("image"), *projection.modality_parameters("text")]
    assert (
        count(both) + count(projection.founder_mlp.parameters() if projection.founder_mlp else ()) == founders
    )
    projection.add_modality("audio", founder=False)
    assert count(projection.modality_parameters("audio")) == later
    assert count(projection.parameters()) == shared + founders + later


def test_a_map_follows_only_if_the_widths_differ():
    assert count(Universal(100).parameters()) == 1_315_584 + 256 * 100


def test_what_is_given_wins_over_the_preset():
    projection = Universal(8, preset="large", width=32, layers=1)
    assert (projection.width, len(projection.transformer.layers), projection.has_token_mlp) == (32, 1, False)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_matches_the_formula_without_padding(fusion):
    """An oracle written with torch's own layers, one row at a time."""
    p = build(fusion, dim=8)
    x, _ = inputs()
    pooled, tokens = p(x, torch.ones(x.shape[:2], dtype=torch.bool), "audio")
    t = p.later_mlps["audio_mlp"](p.tokens["audio_token"])
    for i, row in enumerate(x):
        if fusion == "add":
            z = row + t
        elif fusion == "multiply":
            z = row * t
        elif fusion == "concatenate":
            assert len(t) == 15
            z = torch.cat([t, row])
        else:
            a = p.attention
            weights = torch.softmax(a.query(t) @ a.key(row).T / 4, -1)
            z = row + weights @ a.value(row)
        layer = p.transformer.layers[0]
        u = nn.functional.layer_norm(z, (16,), p.norm.weight, p.norm.bias)
        attended = layer.self_attn(u[None], u[None], u[None], need_weights=False)[0][0]
        h = layer.norm1(u + attended)
        e = layer.norm2(h + layer.linear2(torch.relu(layer.linear1(h))))
        out = (e + z)[-len(row) :] @ p.out.weight.T
        torch.testing.assert_close(tokens[i], out, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(pooled[i], out.mean(0), atol=1e-5, rtol=1e-4)


def test_adding_a_zero_token_is_no_token():
    p = build(token_mlp=False)
    x, mask = inputs()
    with torch.no_grad():
        p.tokens["image_token"].zero_()
        want = p.transformer(p.norm(x), src_key_padding_mask=~mask) + x
        got = p(x, mask, "image")[1]
    torch.testing.assert_close(got[mask], want[mask])


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("fusion", FUSIONS)
@settings(max_examples=15, deadline=None)
@given(
    padding=st.integers(0, 9),
    junk=st.sampled_from([0.0, 1e4, float("nan"), float("inf")]),
    seed=st.integers(0, 99),
)
def test_padding_and_neighbours_change_nothing(fusion, grad, padding, junk, seed):
    p = build(fusion)
    x, mask = inputs(seed=seed)
    with torch.set_grad_enabled(grad):
        pooled, tokens = p(x, mask, "text")
        wide = torch.cat([x, torch.full((4, padding, 16), junk)], 1)
        wide[:, :6][~mask] = junk
        more = torch.cat([mask, torch.zeros(4, padding, dtype=torch.bool)], 1)
        again, again_tokens = p(wide, more, "text")
        torch.testing.assert_close(again, pooled, atol=1e-5, rtol=0)
        torch.testing.assert_close(again_tokens[:, :6][mask], tokens[mask], atol=1e-5, rtol=0)
        for i in range(4):
            length = int(mask[i].sum())
            alone, _ = p(x[i : i + 1, :length], mask[i : i + 1, :length], "text")
            torch.testing.assert_close(alone[0], pooled[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_row_with_no_real_token_harms_nobody(fusion):
    p = build(fusion)
    x, mask = inputs()
    mask[2] = False
    pooled, _ = p(x, mask, "image")
    assert pooled.isfinite().all()
    pooled[[0, 1, 3]].square().sum().backward()
    assert all(q.grad is None or q.grad.isfinite().all() for q in p.parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_later_stage_trains_only_its_own(fusion):
    p = build(fusion)
    x, mask = inputs()
    with torch.no_grad():
        before = [p(x, mask, m) for m in ("image", "text")]
    own = {id(q) for q in p.modality_parameters("audio")}
    for q in p.parameters():
        q.requires_grad_(id(q) in own)
    x.requires_grad_()  # stands for the alignment layer's output
    optimiser = torch.optim.SGD([q for q in p.parameters() if q.requires_grad], lr=0.1)
    p(x, mask, "audio")[0].square().sum().backward()
    assert all((q.grad is None) == (id(q) not in own) for q in p.parameters())
    assert x.grad.abs().sum() > 0
    optimiser.step()
    x.requires_grad_(False)
    with torch.no_grad():
        after = [p(x, mask, m) for m in ("image", "text")]
    assert all(
        torch.equal(a, b)
        for old, new in zip(before, after, strict=True)
        for a, b in zip(old, new, strict=True)
    )


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradient_reaches_all_of_a_modality(fusion):
    p = build(fusion).train()
    x, mask = inputs()
    weights = torch.randn(16)
    (p(x, mask, "image")[0] * weights).sum().backward()
    for name, q in p.named_parameters():
        other = name.startswith(("tokens.text", "tokens.audio", "later_mlps"))
        assert (q.grad is None or not q.grad.any()) == other, name


def test_founders_share_the_token_mlp_and_tell_modalities_apart():
    p = build()
    x, mask = inputs()
    assert not torch.allclose(p(x, mask, "image")[0], p(x, mask, "text")[0])
    shared = {id(q) for q in p.founder_mlp.parameters()}
    for modality in ("image", "text", "audio"):  # so that one of them can be trained again alone
        assert not shared & {id(q) for q in p.modality_parameters(modality)}


def test_tokens_are_spread_as_published():
    torch.manual_seed(0)
    p = Universal(4096, width=4096, layers=1, hidden=1, token_mlp=False)
    for i in range(20):
        p.add_modality(f"m{i}", founder=True)
    spreads = torch.stack([t.std() for t in p.tokens.values()])
    assert spreads.min() > 0.09
    assert spreads.max() < 0.63
    assert spreads.std() > 0.05


def test_state_travels_and_awkward_names_work():
    names = ("keys", "type", "a-b_c", "training")

    def made():
        p = Universal(8, width=8, heads=2, hidden=8)
        for i, name in enumerate(names):
            p.add_modality(name, founder=i < 2)
        return p.eval()

    one, two = made(), made()
    two.load_state_dict(one.state_dict())
    x, mask = inputs(width=8)
    assert all(torch.equal(one(x, mask, n)[0], two(x, mask, n)[0]) for n in names)


@pytest.mark.parametrize(
    "kwargs",
    [{"preset": "huge"}, {"fusion": "sum"}, {"width": 10, "heads": 4}, {"token_count": 3, "fusion": "add"}],
)
def test_what_cannot_be_built_says_so(kwargs):
    with pytest.raises(ValueError, match=str(next(iter(kwargs.values())))):
        Universal(8, **kwargs)


def test_unknown_and_repeated_modalities_are_named():
    p = build()
    x, mask = inputs()
    with pytest.raises(KeyError, match=r"smell.*audio, image, text"):
        p(x, mask, "smell")
    with pytest.raises(KeyError, match="smell"):
        list(p.modality_parameters("smell"))
    with pytest.raises(ValueError, match="image"):
        p.add_modality("image", founder=False)
