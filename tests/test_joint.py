"""Several modalities as one query: scores, retrieval and zero-shot against enumeration."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.combine import combined
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.space import Space
from modalign.spec import Spec
from modalign.tasks import Retrieval, ZeroShot
from modalign.tasks.joint import joint_items
from torch.nn.functional import normalize

from .splits import Table

torch.set_num_threads(1)


def unit(n, d=4, seed=0):
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_score_of_a_space():
    space = Space(4, Spec("linear"))
    a, b, c = (unit(n, seed=n) for n in (3, 3, 5))
    b = unit(3, seed=9)
    got = space.score({"image": a, "audio": b}, {"text": c})
    assert got.shape == (3, 5)
    torch.testing.assert_close(got, torch.einsum("nd,nd,kd->nk", a, b, c))
    torch.testing.assert_close(space.score({"image": a}, {"text": c}), space.similarity(a, c))
    torch.testing.assert_close(space.score({"image": a}, {"text": b, "audio": b}), (a @ (b * b).T))
    sums = space.score({"image": a, "audio": b}, {"text": c}, combine="sum")
    torch.testing.assert_close(sums, a @ c.T + b @ c.T)
    for wrong in ({}, {"image": a, "audio": c}):
        with pytest.raises(UserError, match="queries"):
            space.score(wrong, {"text": c})
    with pytest.raises(UserError, match="product"):
        space.score({"image": a}, {"text": c}, combine="prod")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=8),
    st.sampled_from(["product", "sum"]),
)
def test_one_item_per_row_that_has_all_and_per_choice(left, right, how):
    a, b = (Items(unit(4, seed=s), torch.tensor(links)) for s, links in enumerate((left, right)))
    want = sorted({(r, i, j) for i, r in set(left) for j, q in set(right) if r == q})
    data = Table({"image": a, "audio": b}, 5)
    if not want:
        with pytest.raises(UserError, match="all of image, audio"):
            joint_items(None, data, ("image", "audio"), how)
        return
    got = joint_items(None, data, ("image", "audio"), how)
    if len(set(left)) == len(left):
        assert len(got) == len(want)
    assert {int(r) for r in got.links[:, 1]} == {r for r, _, _ in want}
    vectors = torch.stack([combined([a.vectors[i], b.vectors[j]], how) for _, i, j in want])
    same_row = torch.tensor([r for r, _, _ in want]).unsqueeze(1) == got.links[:, 1]  # (want, got)
    found = same_row & (torch.cdist(vectors, got.vectors) < 1e-3)
    assert bool(found.any(0).all())
    assert bool(found.any(1).all())


def exclusive_or(rows=24):
    """Sign vectors with text = image · audio: no pair tells anything."""
    g = torch.Generator().manual_seed(0)
    image, audio = ((torch.randint(0, 2, (rows, 16), generator=g) * 2 - 1) / 4 for _ in range(2))
    each = torch.arange(rows).unsqueeze(1).expand(-1, 2)
    text = normalize(image * audio, dim=1)
    vectors = {"image": image, "audio": audio, "text": text}
    return Table({m: Items(v, each) for m, v in vectors.items()}, rows)


def test_retrieval_with_several_modalities():
    task = Retrieval(["image", "audio"], "text")
    assert (task.about, task.modalities) == ("image+audio->text", ("image", "audio", "text"))
    data = exclusive_or()
    assert task.run(None, data).metrics["R@1"] == 1
    for other in (Retrieval("image", "text"), Retrieval(["image", "audio"], "text", combine="sum")):
        assert other.run(None, data).metrics["R@1"] < 0.5
    data.items["audio"] = Items(data.items["audio"].vectors[:9], data.items["audio"].links[:9])
    assert task.run(None, data).tables["sizes"][0]["queries"] == 9


def test_zero_shot_with_several_modalities():
    data = exclusive_or()
    data.labels, data.classes = torch.arange(24), tuple(map(str, range(24)))
    task = ZeroShot(modality=["image", "audio"], classes="text")
    assert (task.about, task.modalities) == ("image+audio", ("image", "audio", "text"))
    assert task.run(None, data).metrics["accuracy"] == 1
    assert ZeroShot(["image", "audio"], "text", combine="sum").run(None, data).metrics["accuracy"] < 0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retrieval(["image", "text"], "text"),
        lambda: Retrieval([], "text"),
        lambda: Retrieval(["image", "image"], "text"),
        lambda: Retrieval(["image", "audio"], "text", combine="mean"),
        lambda: ZeroShot(["image", "text"], "text"),
        lambda: ZeroShot(["image", "audio"], "text", combine="mean"),
    ],
)
def test_senseless_questions_are_refused(make):
    with pytest.raises(UserError):
        make()
