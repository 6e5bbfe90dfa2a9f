"""CWCL: the definition in float64, InfoNCE as a limit, and whose features count."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.losses import CWCL, InfoNCE
from torch.nn.functional import normalize

torch.set_num_threads(1)
NAMES = ("image", "text", "audio")


def batch(n, names=NAMES[:2], d=5, seed=0, taught=("image",), scale=1.0, ids=None):
    g = torch.Generator().manual_seed(seed)
    vectors = {m: normalize(torch.randn(n, d, generator=g), dim=1).requires_grad_() for m in names}
    teacher = {m: torch.randn(n, 3, generator=g) for m in taught}
    return Embeddings(vectors, scale=scale, teacher=teacher, ids=ids or {})


def brute(x, y, p, scale, width, same=None):
    """The formula with its matrices, in float64."""
    x, y, p = (t.detach().double() for t in (x, y, p))
    cosines = normalize(p, dim=1) @ normalize(p, dim=1).T
    weights = 0.5 + 0.5 * cosines if width is None else ((cosines - 1) / width).exp()
    targets = weights / weights.sum(1, keepdim=True)
    scores = scale * x @ y.T
    back = scores.T if same is None else scores.T.masked_fill(same, -math.inf)
    return (-(targets * scores.log_softmax(1)).sum(1).mean() - back.log_softmax(1).diagonal().mean()) / 2


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 8),
    scale=st.sampled_from([1.0, 14.3, 100.0]),
    width=st.sampled_from([None, 0.1, 1.0]),
    tile=st.integers(1, 9),
    duplicates=st.sampled_from(["mask", "negative"]),
    data=st.data(),
)
def test_equals_the_definition(n, scale, width, tile, duplicates, data):
    ids = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    z = batch(n, seed=data.draw(st.integers(0, 99)), ids={"text": ids})
    same = (ids.unsqueeze(1) == ids).fill_diagonal_(False) if duplicates == "mask" else None
    got = CWCL(width=width, temperature=1 / scale, duplicates=duplicates, tile=tile)(z)
    want = brute(*z.vectors.values(), z.teacher["image"], scale, width, same)
    assert got.item() == pytest.approx(want.item(), rel=2e-5, abs=2e-5)


def test_sharp_weights_are_infonce():
    z = batch(9)
    loss = CWCL(width=1e-4, temperature=0.1)(z)
    torch.testing.assert_close(loss, InfoNCE(0.1)(z))
    own = Embeddings(z.vectors, teacher={"image": torch.eye(9)})
    torch.testing.assert_close(CWCL(width=0.01, temperature=0.1)(own), InfoNCE(0.1)(own))


def test_equal_weights_pull_to_the_mean():
    """The weighted direction can then do no better than log N."""
    z = batch(8, scale=10.0)
    z = Embeddings(z.vectors, scale=10.0, teacher={"image": torch.ones(8, 3)})
    back = InfoNCE(0.1, pairs=[["text", "image"]], symmetric=False)(z)
    assert 2 * CWCL()(z) - back >= math.log(8)


@pytest.mark.parametrize("width", [None, 0.3])
def test_the_length_of_the_teacher_s_features_does_not_matter(width):
    z = batch(8)
    longer = Embeddings(z.vectors, teacher={"image": z.teacher["image"] * torch.rand(8, 1).add(0.1)})
    torch.testing.assert_close(CWCL(width=width)(longer), CWCL(width=width)(z))


def test_the_side_with_features_has_the_weights():
    z = batch(8, taught=("text",))
    want = brute(z.vectors["text"], z.vectors["image"], z.teacher["text"], 1.0, None)
    assert CWCL()(z).item() == pytest.approx(want.item(), rel=1e-5)
    both = batch(8, taught=("image", "text"))
    assert CWCL(teacher="text")(both) != CWCL()(both)
    assert CWCL(teacher="image")(both) == CWCL()(both)


def test_a_pair_whose_features_are_missing_is_named():
    with pytest.raises(ValueError, match=r"text or audio.*image"):
        CWCL()(batch(4, NAMES))
    with pytest.raises(ValueError, match=r"teacher.*no modality"):
        CWCL()(batch(4, taught=()))


def test_no_gradient_reaches_the_teacher():
    z = batch(5)
    z.teacher["image"].requires_grad_()
    CWCL()(z).backward()
    assert z.teacher["image"].grad is None


def test_absent_rows_of_the_teacher_are_not_read():
    z = batch(6)
    here = torch.arange(6) < 4
    z.teacher["image"][~here] = math.nan
    gone = Embeddings(z.vectors, teacher=z.teacher, present={"image": here})
    first = Embeddings({m: v[:4] for m, v in z.vectors.items()}, teacher={"image": z.teacher["image"][:4]})
    torch.testing.assert_close(CWCL()(gone), CWCL()(first))
