"""The XOR example runs, and its numbers are what theory says."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
SCRIPT = Path(__file__).parents[1] / "examples" / "xor" / "xor.py"


@pytest.fixture(scope="module")
def xor():
    spec = importlib.util.spec_from_file_location("xor_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_the_ceiling_is_that_of_the_best_guess(xor, p):
    """Guess b = a xor c, which is right if rows are mixed, else only where a xor c = 0 = b."""
    rows = xor.draw(40_000, p, 3, torch.Generator().manual_seed(0))
    guess = (rows["a"] != rows["c"]).float()
    right = float((guess == rows["b"]).all(1).float().mean())
    assert right == pytest.approx(xor.ceiling(p, 3), abs=0.01)


def test_symile_reaches_the_ceiling_and_pairs_do_not(xor):
    symile, infonce = xor.synergy(1.0, epochs=12, n=4000)
    assert symile == pytest.approx(xor.ceiling(1.0), abs=0.03)
    assert infonce == pytest.approx(2**-5, abs=0.03)


@pytest.mark.parametrize("missing", ["learned", "subset"])
def test_missing_values_are_no_obstacle(xor, missing):
    assert xor.with_missing(0.5, missing, epochs=40, n=4000) >= 0.99


@pytest.mark.slow
def test_the_script_prints_and_draws(xor, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["xor.py", "--out", str(tmp_path / "xor.png"), "--epochs", "20"])
    xor.main()
    assert (tmp_path / "xor.png").stat().st_size > 10_000
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = [list(map(float, row)) for row in lines[1:6]]
    for _, ceiling, symile, infonce in table:
        assert symile == pytest.approx(ceiling, abs=0.03)
        assert infonce == pytest.approx(2**-5, abs=0.02)
    assert all(float(x) >= 0.99 for row in lines[7:10] for x in row[1:])
