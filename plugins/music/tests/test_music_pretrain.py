"""Masked-music pre-training: what is hidden, that it learns, and the folder it leaves."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from modalign import UserError
from modalign_music.masked import MaskedMusic, disturbed
from modalign_music.midi import Midi
from modalign_music.patches import MASKED
from modalign_music.pretrain import main, pretrain
from modalign_music.score import Score
from modalign_music.transformer import BarTransformer, MidiTransformer

torch.set_num_threads(1)
SMALL = {"width": 32, "layers": 1, "heads": 2, "ngrams": 2, "buckets": 128}
FLAGS = [part for name, value in SMALL.items() for part in (f"--{name}", str(value))]


def test_45_percent_of_the_patches_are_chosen():
    batch = Score().collate(Score().example(200))
    patches, mask = batch["patches"], batch["mask"]
    seen, chosen = disturbed(patches, mask, torch.Generator().manual_seed(0))
    assert abs(float(chosen.sum() / mask.sum()) - 0.45) < 0.03
    assert chosen.any(1).all()
    assert not (chosen & ~mask).any()
    changed = (seen != patches).any(2)
    assert not (changed & ~chosen).any()
    masked = (seen == MASKED).any(2)
    assert abs(float(masked[chosen].float().mean()) - 0.8) < 0.1
    kept = chosen & ~masked
    assert torch.equal(seen[kept].sort(1)[0], patches[kept].sort(1)[0])  # shuffled or as they were
    assert torch.equal(seen > 0, patches > 0)


def test_it_learns_what_the_neighbours_tell():
    """Every tune repeats one bar: what is hidden stands beside it."""
    score = Score(hide=0.0, crop=0.0)
    bars = ["cdef|", "g2a2|", "BABc|", "d3 e|"]
    items = [[bars[i % 4]] * 6 for i in range(32)]
    torch.manual_seed(0)
    history = pretrain(
        BarTransformer(**SMALL, dropout=0.0), score, items, items, epochs=25, batch_size=8, lr=5e-3
    )
    assert history[0] > 1
    assert history[-1] < 0.3


def test_gradient_reaches_all_but_the_pool():
    model = MaskedMusic(BarTransformer(**SMALL))
    batch = Score().collate(Score().example(4))
    model(batch["patches"], batch["mask"], torch.Generator().manual_seed(0)).backward()
    missed = [name for name, p in model.named_parameters() if p.grad is None]
    assert missed == ["encoder.ask.weight", "encoder.ask.bias"]


def test_the_command_writes_a_folder_that_encoders_start_from(tmp_path, capsys):
    tunes = [
        "X:1\nM:3/4\nK:G\n" + "|".join("GABcde"[i % 6] + "2B2d2" for i in range(k, k + 8)) for k in range(12)
    ]
    table = pa.table({"abc": [*tunes, ""], "split": ["train"] * 9 + ["val"] * 4})
    pq.write_table(table, tmp_path / "t.parquet")
    out = tmp_path / "weights"
    main(["--table", str(tmp_path / "t.parquet"), "--column", "abc", "--split", "split", "--epochs", "2",
          "--out", str(out), *FLAGS])  # fmt: skip
    assert capsys.readouterr().out.strip() == str(out)
    about = json.loads((out / "config.json").read_text())
    assert about["sizes"] == SMALL
    assert about["pieces"] == 9
    one, two, fresh = (
        BarTransformer(**SMALL, weights=str(out)),
        BarTransformer(**SMALL, weights=str(out)),
        BarTransformer(**SMALL),
    )
    for name, value in one.state_dict().items():
        if not name.startswith("ask."):
            assert torch.equal(value, two.state_dict()[name])
    assert not torch.equal(one.embed.table.weight, fresh.embed.table.weight)
    with pytest.raises(UserError, match="layers 1, not 2"):
        BarTransformer(**{**SMALL, "layers": 2}, weights=str(out))
    (out / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="pretrain"):
        BarTransformer(**SMALL, weights=str(out))


def test_the_command_reads_midi_files_beside_the_table(tmp_path):
    import symusic

    for i in range(3):
        score, track = symusic.Score(480), symusic.Track()
        track.notes.extend(symusic.Note(480 * k, 480, 60 + i + k, 80) for k in range(6))
        score.tracks.append(track)
        (tmp_path / f"{i}.mid").write_bytes(score.dumps_midi())
    (tmp_path / "t.csv").write_text("file\n0.mid\n1.mid\n2.mid\nmissing.mid\n")
    main(["--table", str(tmp_path / "t.csv"), "--column", "file", "--modality", "midi", "--epochs", "1",
          "--out", str(tmp_path / "w"), *FLAGS])  # fmt: skip
    encoder = MidiTransformer(**SMALL, weights=str(tmp_path / "w")).eval()
    assert encoder(Midi().collate(Midi().example(2))).tokens.shape == (2, 4, 32)
    assert json.loads((tmp_path / "w" / "config.json").read_text())["pieces"] == 3


def test_wrong_tables_are_the_user_s_mistake(tmp_path, capsys):
    for table in ("absent.parquet", "t.csv"):
        (tmp_path / "t.csv").write_text("a\n1\n")
        with pytest.raises(SystemExit) as exit:
            main(["--table", str(tmp_path / table), "--column", "abc", "--out", str(tmp_path / "o")])
        assert exit.value.code == 2
        assert "cannot read" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
