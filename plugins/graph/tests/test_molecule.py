"""The molecule modality and its encoders: against RDKit, and what must not matter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import BadSample
from modalign_graph import counts
from modalign_graph.atoms import ATOM_SIZES, BOND_SIZES, MASKED
from modalign_graph.fingerprint import Fingerprint
from modalign_graph.gin import GIN
from modalign_graph.molecule import Molecule
from rdkit import Chem
from rdkit.Chem import Descriptors

torch.set_num_threads(1)
ASPIRIN, ALANINE = "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O"
PLAIN = Molecule()


def encode(encoder, *smiles):
    molecule = Molecule(**encoder.modality_options())
    with torch.no_grad():
        features = encoder.eval()(molecule.collate([molecule.read(s) for s in smiles]))
    return [tokens[mask] for tokens, mask in zip(features.tokens, features.mask, strict=True)]


def test_atoms_and_bonds_are_rdkits():
    item, molecule = PLAIN.read(ASPIRIN), Chem.MolFromSmiles(ASPIRIN)
    assert item.atoms[:, 0].tolist() == [a.GetAtomicNum() for a in molecule.GetAtoms()]
    assert item.atoms[:, 3].tolist() == [a.GetTotalNumHs() for a in molecule.GetAtoms()]
    assert item.atoms[:, 5].sum() == 6
    assert len(item.bonds) == molecule.GetNumBonds() == len(item.ends)
    assert [(a, b) for a, b in item.ends.tolist()] == [
        (b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.GetBonds()
    ]
    assert (item.atoms < torch.tensor(ATOM_SIZES).numpy()).all()
    assert (item.bonds < torch.tensor(BOND_SIZES).numpy()).all()


@pytest.mark.parametrize("write", [Chem.MolToMolBlock, Chem.MolToV3KMolBlock])
def test_a_mol_block_is_the_molecule(write, tmp_path):
    block = write(Chem.AddHs(Chem.MolFromSmiles("CC(N)C(=O)O")))
    (tmp_path / "a.mol").write_text(block)
    record = f"{block}> <x>\ny\n\n$$$$\n"
    for value in (block, block.encode(), tmp_path / "a.mol", record.encode()):
        assert PLAIN.read(value).smiles == Chem.CanonSmiles("CC(N)C(=O)O")
    assert len(PLAIN.read(block).atoms) == 6


def test_a_file_or_a_name_behind_it_makes_no_difference(tmp_path):
    (tmp_path / "a.smi").write_text(f"{ASPIRIN} aspirin\n")
    for value in (f" {ASPIRIN} aspirin", ASPIRIN.encode(), tmp_path / "a.smi"):
        assert PLAIN.read(value).smiles == PLAIN.read(ASPIRIN).smiles


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "empty"), ("   ", "empty"), ("hello", "not a SMILES"), ("CC(C)(C)(C)C", "more bonds"),
        ("c1cccc1", "aromatic"), ("C>>N", "reaction"), ("C" * 5000, "at most 4096"),
        ("C" * 1025, "at most 1024"), ("Ç", "characters"), (5, "int"), (None, "NoneType"), (["C"], "list"),
    ],
)  # fmt: skip
def test_says_why_it_refuses(value, reason, capfd):
    with pytest.raises(BadSample, match=reason):
        PLAIN.read(value)
    assert capfd.readouterr() == ("", "")


def test_counts_are_logarithms_of_rdkits():
    item = Molecule(graph=False, fingerprints=["groups", "totals"]).read(ASPIRIN)
    molecule = Chem.MolFromSmiles(ASPIRIN)
    found = dict(zip(counts.GROUPS, torch.tensor(item.counts).expm1().round().int().tolist(), strict=False))
    assert len(counts.GROUPS) == 85
    assert {k for k, v in found.items() if v} >= {"fr_ester", "fr_benzene", "fr_COO"}
    assert all(found[name] == getattr(Descriptors, name)(molecule) for name in counts.GROUPS)


def test_kinds_stand_side_by_side():
    for kind in counts.KINDS:
        one = Molecule(graph=False, fingerprints=[kind], size=64).read(ASPIRIN).counts
        both = Molecule(graph=False, fingerprints=["maccs", kind], size=64).read(ASPIRIN).counts
        assert len(one) == counts.width([kind], 64)
        assert (both[167:] == one).all()
        assert one.any()


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([ASPIRIN, ALANINE, "C/C=C\\C(=O)[O-].[Na+]", "F[C@](Cl)(Br)C#N"]), st.integers(0, 10**6)
)
def test_the_order_in_which_atoms_are_written_does_not_matter(smiles, seed):
    other = Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 1, randomSeed=seed)[0]
    torch.manual_seed(0)
    for encoder in (GIN(width=16, layers=2), Fingerprint(size=128)):
        one, two = encode(encoder, smiles)[0], encode(encoder, other)[0]
        assert torch.allclose(one[0], two[0], atol=1e-5)
        assert torch.allclose(one.sum(0), two.sum(0), atol=1e-3)


def test_mirror_images_and_isomers_differ():
    torch.manual_seed(0)
    for encoder in (GIN(width=16, layers=3), Fingerprint()):
        for one, two in (
            (ALANINE, ALANINE.replace("@", "@@")),
            ("C/C=C/C", "C/C=C\\C") if isinstance(encoder, GIN) else ("CCO", "CCN"),
            ("CCCCC", "CCCCCC"),
        ):
            a, b = encode(encoder, one)[0][0], encode(encoder, two)[0][0]
            assert not torch.allclose(a, b, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.6))
def test_variants_are_parts_of_the_molecule(seed, drop):
    molecule = Molecule(fingerprints=["morgan"], size=64, drop=drop)
    batch = molecule.collate([molecule.read(s) for s in (ASPIRIN, "C", ALANINE, "CC.O", "C" * 40)])
    found = molecule.augment(batch, torch.Generator().manual_seed(seed))
    assert (found["mask"] <= batch["mask"]).all()
    assert found["mask"].any(1).all()
    assert (found["bond_mask"] <= batch["bond_mask"]).all()
    ends = found["ends"][found["bond_mask"]]
    rows = torch.arange(5).view(-1, 1).expand(found["bond_mask"].shape)[found["bond_mask"]]
    assert found["mask"][rows.unsqueeze(1), ends].all()
    changed = (found["atoms"] != batch["atoms"]).any(-1)
    assert (found["atoms"][..., 0][changed] == MASKED).all()
    assert ((found["counts"] == 0) | (found["counts"] == batch["counts"])).all()
    GIN(width=8, layers=1)(found)


def test_each_kind_of_variant_occurs():
    batch = PLAIN.collate([PLAIN.read(ASPIRIN)] * 200)
    found = PLAIN.augment(batch, torch.Generator().manual_seed(0))
    fewer = (found["mask"].sum(1) < batch["mask"].sum(1)).float().mean()
    hidden = (found["atoms"][..., 0] == MASKED).any(1).float().mean()
    moved = (found["ends"] != batch["ends"]).any(-1).any(1).float().mean()
    assert 0.35 < fewer < 0.65
    assert 0.1 < hidden < 0.4
    assert 0.05 < moved < 0.4


def test_draws_the_molecule_if_it_is_small():
    kind, content = PLAIN.preview(PLAIN.read(ASPIRIN))
    assert kind == "image/svg+xml"
    assert b"<svg" in content
    assert b"script" not in content
    assert PLAIN.preview(PLAIN.read("C" * 300)) == ("text/plain", b"C" * 300)


def test_gin_learns_what_counting_elements_cannot():
    """Whether the two oxygens are neighbours of one carbon: acids against diols and ketols."""
    acids = ["C" * i + "C(=O)O" for i in range(1, 9)]
    others = ["C" * i + "C(=O)CO" for i in range(8)]
    batch = PLAIN.collate([PLAIN.read(s) for s in acids + others])
    target = torch.tensor([1.0] * 8 + [0.0] * 8)
    torch.manual_seed(0)
    encoder, head = GIN(width=16, layers=2, dropout=0.0), torch.nn.Linear(16, 1)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 1e-2)
    for _ in range(60):
        found = head(encoder(batch).tokens[:, 0]).squeeze(1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(found, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_says_which_arguments_are_wrong():
    with pytest.raises(ValueError, match="morgan"):
        Molecule(fingerprints=["ecfp"])
    with pytest.raises(ValueError, match="nothing"):
        Molecule(graph=False)
    with pytest.raises(ValueError, match="max_atoms"):
        Molecule(max_atoms=10**6)
    with pytest.raises(ValueError, match="no fingerprint"):
        Fingerprint(kinds=["ecfp"])
    with pytest.raises(ValueError, match="hidden"):
        Fingerprint(hidden=[0])
    with pytest.raises(ValueError, match="layers"):
        GIN(layers=0)


def test_a_perceptron_gives_its_last_width():
    encoder = Fingerprint(size=64, hidden=[32, 16])
    assert encode(encoder, ASPIRIN)[0].shape == (1, 16)
    assert not encoder.pretrained
    assert Fingerprint().pretrained
