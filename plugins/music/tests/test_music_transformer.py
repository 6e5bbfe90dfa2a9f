"""The encoders: options, patches, places, n-grams, and what training drops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import UserError
from modalign_music.midi import Midi
from modalign_music.ngrams import NGramEmbedding
from modalign_music.patches import collate, hidden, vary
from modalign_music.score import Score
from modalign_music.transformer import BarTransformer, MidiTransformer

torch.set_num_threads(1)
SMALL = {"width": 32, "layers": 1, "buckets": 256}


def _tokens(encoder, items, limit=512):
    with torch.no_grad():
        return encoder.eval()(collate(items, limit))


def test_a_patch_for_each_bar_and_more_for_long_ones():
    batch = collate([["c|", "d" * 130 + "|"], ["e|"]], 512)
    assert batch["mask"].tolist() == [[True] * 4, [True, False, False, False]]
    assert bytes(batch["patches"][0, 3]).rstrip(b"\0") == b"dd|"
    assert batch["patches"][1, 1:].sum() == 0
    assert collate([["c" * 999] * 9], 5)["mask"].shape == (1, 5)


def test_pool_says_how_many_tokens_come_out():
    items = [["c|"] * 5, ["d|"]]
    assert _tokens(BarTransformer(pool=3, **SMALL), items).tokens.shape == (2, 3, 32)
    each = _tokens(BarTransformer(pool=0, **SMALL), items)
    assert each.mask.tolist() == [[True] * 5, [True] + [False] * 4]


@pytest.mark.parametrize("pool", [0, 2])
def test_the_longest_items_are_finite_and_alone(pool):
    encoder = BarTransformer(pool=pool, **SMALL)
    long, short = ["\x7f" * 64] * 512, ["z"]
    both, alone = _tokens(encoder, [long, short]), _tokens(encoder, [short])
    assert both.tokens.isfinite().all()
    n = int(alone.mask.sum())
    torch.testing.assert_close(both.tokens[1, :n], alone.tokens[0, :n], rtol=0, atol=1e-5)


def test_order_and_ends_matter():
    encoder = BarTransformer(**SMALL)
    one, two = _tokens(encoder, [["c|", "d|", "e|"], ["e|", "d|", "c|"]]).tokens
    assert not torch.allclose(one, two, atol=1e-4)


def test_training_drops_patches_and_keeps_one():
    encoder = BarTransformer(drop_patches=0.9, **SMALL).train()
    batch = collate([["c|"], ["c|"] * 40], 512)
    for _ in range(20):
        _, mask = encoder.encode(batch["patches"], batch["mask"])
        assert mask.any(1).all()
        assert not (mask & ~batch["mask"]).any()
    assert mask[1].sum() < 20


def test_midi_asks_for_its_patches():
    assert MidiTransformer(per="message", **SMALL).modality_options() == {"per": "message"}
    batch = Midi(per="message").collate(Midi(per="message").example(2))
    assert MidiTransformer(**SMALL).eval()(batch).tokens.shape == (2, 4, 32)


@pytest.mark.parametrize(
    "wrong",
    [{"width": 30, "heads": 4}, {"pool": -1}, {"ngrams": 0}, {"dropout": 1.0}, {"drop_patches": -0.1}],
)
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(UserError):
        BarTransformer(**wrong)


@given(st.lists(st.text("abcdefgABC|:2/", min_size=1, max_size=64), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_ngrams_are_a_bag_with_marked_ends(texts):
    """Against the definition: the sum over n-grams of one row each, by a hash of the characters alone."""
    embed = NGramEmbedding(8, ngrams=3, buckets=64)
    patches = collate([texts], 99)["patches"][0]
    got = embed(patches)
    for text, row in zip(texts, got, strict=True):
        marked = "\x02" + text + "\x02"
        total, count = torch.zeros(8), 0
        for n in (1, 2, 3):
            for i in range(len(marked) - n + 1):
                code = 0
                for c in marked[i : i + n]:
                    code = code * 131 + ord(c)
                mixed = (code ^ (code >> 15)) * 0x2C1B3C6D & 0x7FFFFFFF
                total = total + embed.table.weight[(mixed ^ (mixed >> 12)) % 64 + (n - 1) * 64]
                count += 1
        torch.testing.assert_close(row, total / count**0.5, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 2**31), st.lists(st.integers(1, 30), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_augment_keeps_a_stretch_of_each_item(seed, lengths):
    score = Score(crop=0.5, hide=0.3)
    items = [[f"{i % 10}{i // 10}c|" for i in range(n)] for n in lengths]
    batch = score.collate(items)
    found = score.augment(batch, torch.Generator().manual_seed(seed))
    for item, patches, mask in zip(items, found["patches"], found["mask"], strict=True):
        kept = [bytes(p).rstrip(b"\0").decode() for p in patches[mask]]
        assert len(item) >= len(kept) >= max(1, len(item) // 2)
        assert any(
            all(k in (bar, "\x01" * len(bar)) for k, bar in zip(kept, item[s : s + len(kept)], strict=True))
            for s in range(len(item) - len(kept) + 1)
        )
        assert not patches[~mask].any()


def test_stretches_begin_and_end_anywhere():
    score = Score(crop=0.5, hide=0.0)
    batch = score.collate([[f"{i}c|" for i in range(20)]] * 50)
    found = score.augment(batch, torch.Generator().manual_seed(0))
    kept = [
        [int(bytes(p).split(b"c")[0]) for p in patches[mask]]
        for patches, mask in zip(found["patches"], found["mask"], strict=True)
    ]
    assert {rows[0] for rows in kept} >= {0, 1, 2, 3}
    assert {rows[-1] for rows in kept} >= {16, 17, 18, 19}
    assert min(map(len, kept)) < 14


def test_nothing_cropped_or_hidden_is_the_same():
    batch = Score().collate(Score().example(3))
    same = vary(batch, torch.Generator().manual_seed(0), 0.0, 0.0)
    assert torch.equal(same["patches"], batch["patches"])
    assert torch.equal(same["mask"], batch["mask"])
    everything = hidden(batch["patches"], batch["mask"])
    assert set(everything.unique().tolist()) == {0, 1}
