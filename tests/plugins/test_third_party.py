"""A plugin that is not ours: built, installed, used in a plan with text, and removed again."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

FOLDER = Path(__file__).parents[1] / "third_party" / "modalign-dna"
KINDS = {  # a motif that stands somewhere in the sequence, and what the table says about it
    "TATAAAAG": "a promoter with a TATA box",
    "CGCGCGCGCG": "an island of CpG",
    "AAAAAAAAAAAA": "a tail of A",
    "GAGAGAGAGAGA": "a repeat of GA",
}


def make_table(folder: Path, rows: int = 240) -> Path:
    draw = random.Random(0)
    (folder / "fasta").mkdir()
    table = []
    for i in range(rows):
        motif, text = list(KINDS.items())[i % 4]
        parts = []
        for _ in range(2):  # two reads of one kind: `dna` and `read` never meet in training
            body = "".join(draw.choice("ACGT") for _ in range(draw.randrange(20, 60)))
            parts.append(motif * 3 + body + motif * 2)
        for column, sequence in zip(("dna", "read"), parts, strict=True):
            (folder / "fasta" / f"{column}{i}.fa").write_text(f">{column}{i}\n{sequence}\n")
        table.append(
            {
                "dna": f"fasta/dna{i}.fa", "read": f"fasta/read{i}.fa", "text": text, "kind": text,
                "split": "test" if i % 3 == 0 else "train",
            }
        )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(table), folder / "dna.parquet")
    return folder / "dna.parquet"


PLAN = """
name: dna
data: {table: dna.parquet, split: split, label: kind}
modalities:
  dna: {encoder: {name: dna-kmer, width: 32}, trainable: true}
  text: {encoder: {name: char-cnn, width: 32, layers: 2}, trainable: true}
  read: {encoder: {name: dna-cnn, width: 32, layers: 1}, trainable: true}
space: {dim: 32, projection: {name: universal, width: 32, heads: 2, hidden: 64}}
stages:
  - {name: dna-text, align: [dna, text], losses: {infonce: 1.0, hardest-stranger: 0.2}, epochs: 8, batch_size: 32, lr: 3e-3}
  - {name: add-read, align: [read, text], losses: {infonce: 1.0}, epochs: 12, batch_size: 32, lr: 3e-3}
tasks:
  - {name: retrieval, from: read, to: dna}
  - {name: mutual-neighbours, from: dna, to: text}
  - {name: zero_shot, modality: dna, classes: text}
track: {uri: null}
"""


@pytest.mark.slow
def test_from_a_wheel_to_a_space_and_back(environment):
    before = environment.state()
    built = environment.run("-m", "pip", "wheel", "--no-deps", "-q", "-w", environment.root, FOLDER)
    assert built.returncode == 0, built.stderr
    (wheel,) = environment.root.glob("modalign_dna-*.whl")
    done = environment.plugins("install", wheel, "text", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["installed"] == {"modalign-dna": "0.1.0", "modalign-text": "0.1.0"}
    assert json.loads(done.stdout)["checks"]["modalign-dna"] > 30

    make_table(environment.root)
    (environment.root / "plan.yaml").write_text(PLAN)
    done = environment.modalign("align", "plan.yaml")
    assert done.returncode == 0, done.stderr
    report = json.loads((environment.root / "runs" / "dna" / "report.json").read_text())
    assert report["versions"]["modalign-dna"] == "0.1.0"
    tasks = report["tasks"]
    assert tasks["zero_shot:dna"]["accuracy"] > 0.8
    assert tasks["retrieval:read->dna"]["class_R@1"] > 0.6  # chance: 0.25
    assert tasks["mutual-neighbours:dna<->text"]["precision"] > 0.6
    assert "dna" in report["stages"][1]["unchanged"]

    assert environment.plugins("uninstall", "dna", "text", "--yes").returncode == 0
    assert environment.state() == before
    done = environment.modalign("align", "plan.yaml", "--out", "again")
    assert done.returncode == 2
    assert "no encoder named 'dna-kmer'" in done.stderr
    assert "Run: modalign plugins install modalign-text" in done.stderr
    done = environment.run("-c", "import modalign\ntry: modalign.load('runs/dna/space')\n"
                                 "except modalign.UserError as error: print(error)")  # fmt: skip
    assert "modalign plugins install --unlisted 'modalign-dna==0.1.0'" in done.stdout
    assert "modalign plugins install modalign-text" in done.stdout


def test_its_own_tests_pass_where_it_is_installed(environment):
    done = environment.run("-m", "pip", "install", "--no-deps", "-q", FOLDER)
    assert done.returncode == 0, done.stderr
    done = environment.run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", FOLDER / "tests", "-c", FOLDER / "pyproject.toml"
    )
    assert done.returncode == 0, done.stdout[-3000:]


TRY = """
import sys
from modalign.cli.main import main
wishes = ["", "plugins: {install: [modalign-text]}", "plugins: [modalign-text]", "install: [modalign-text]"]
for wish in wishes:
    print("plan with", repr(wish), file=sys.stderr)
    open("plan.yaml", "w").write(sys.argv[1] + wish + "\\n")
    assert main(["align", "plan.yaml"]) == 2
"""


def test_a_plan_installs_nothing(environment):
    """What is missing is named, with the command; not even a plan that asks for it gets it."""
    make_table(environment.root, rows=8)
    before = environment.files()
    done = environment.run("-c", TRY, PLAN)
    assert done.returncode == 0, done.stderr
    said = done.stderr.split("plan with ")[1:]
    assert all("Run: modalign plugins install modalign-text" in each for each in said[:1])
    assert all("install" in each or "plugins" in each for each in said)
    assert environment.files() == before
    assert "modalign-text" not in environment.plugins("list").stdout


def test_nothing_but_the_plugins_verb_reaches_the_installer():
    """Running a plan, loading a space, reading a component: no import leads to what installs."""
    import ast

    import modalign

    package = Path(modalign.__file__).parent
    installers = {"install", "pip", "prepare", "journal", "lock", "files", "requests", "wheel"}
    for path in package.rglob("*.py"):
        where = path.relative_to(package)
        if (where.parts[0] == "plugin" and where.stem in installers) or where.parts[:2] == ("cli", "plugins"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
                inside = where.parts[0] == "plugin" and node.level == 1
                ours = "plugin" in (node.module or "").split(".") or inside
                assert not (ours and names & installers), f"{where}, line {node.lineno}"
