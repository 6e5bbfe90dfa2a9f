"""FASTA files, strands and k-mers, against small cases worked out by other means."""

import pytest
import torch
from modalign import BadSample, Embeddings
from modalign_dna.kmer import DnaKmer
from modalign_dna.loss import HardestStranger
from modalign_dna.modality import Dna, other_strand


def letters(item):
    return "".join("ACGTN"[code] for code in item)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b">seq1 a gene\nACGT\nacg\n", "ACGTACG"),
        (b"ACGU", "ACGT"),
        (b"; comment\n>x\nRYN-A*\n", "NNNA"),
        (b">x\r\nAC GT\r\n\r\n", "ACGT"),
    ],
)
def test_fasta(content, expected):
    assert letters(Dna().read(content)) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b">a\nAC\n>b\nGT", "2 sequences"),
        (b">only a head\n", "no sequence"),
        (b">p\nMEEPQ", "'E' at base 2"),
        (b"\xff\xfe\x00", "no IUPAC base"),
    ],
)
def test_what_is_no_dna(content, words):
    with pytest.raises(BadSample, match=words):
        Dna().read(content)


def test_long_sequences_are_cut():
    assert letters(Dna(max_bases=3).read(b"ACGTACGT")) == "ACG"


def test_other_strand():
    modality = Dna()
    batch = modality.collate([modality.read(s) for s in (b"AACGTN", b"GATTACA", b"C")])
    turned = other_strand(batch["bases"], batch["mask"])
    found = [letters(row[m]) for row, m in zip(turned, batch["mask"], strict=True)]
    assert found == ["NACGTT", "TGTAATC", "G"]
    assert torch.equal(other_strand(turned, batch["mask"]), batch["bases"])


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_kmers_against_counting_by_hand(k):
    modality, encoder = Dna(), DnaKmer(width=8, k=k)
    items = modality.example(5, seed=3)
    batch = modality.collate([*items, modality.read(b"A")])
    found = encoder.frequencies(batch["bases"], batch["mask"])
    other = encoder.frequencies(other_strand(batch["bases"], batch["mask"]), batch["mask"])
    assert torch.allclose(found, other)
    complement = str.maketrans("ACGT", "TGCA")
    for row, item in enumerate(items):
        text, counts = letters(item), {}
        for i in range(len(text) - k + 1):
            word = text[i : i + k]
            if "N" not in word:
                twin = word[::-1].translate(complement)
                key = min(sum("ACGT".index(c) * 4**n for n, c in enumerate(w)) for w in (word, twin))
                counts[key] = counts.get(key, 0) + 1
        total = sum(counts.values())
        expected = torch.zeros(4**k)
        for key, count in counts.items():
            expected[key] = count / total * 4**k
        assert torch.allclose(found[row], expected)


def test_the_hardest_stranger_alone_counts():
    torch.manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(6, 4), dim=1) for _ in range(2))
    found = HardestStranger(margin=0.1)(Embeddings({"dna": a, "text": b}, scale=7.0))
    expected = []
    for i in range(6):
        for one, two in ((a, b), (b, a)):
            worst = max(float(one[i] @ two[j]) for j in range(6) if j != i)
            expected.append(
                torch.nn.functional.softplus(torch.tensor(7 * (worst - float(a[i] @ b[i]) + 0.1))) / 7
            )
    assert torch.allclose(found, torch.stack(expected).mean())
