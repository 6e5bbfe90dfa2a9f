"""Linear models on plain features, on the very splits of the medical examples.

    export MODALIGN_DATA=FOLDER
    python benchmarks/plain_medical.py                       # mednist, mitbih, cxr_notes
    python benchmarks/plain_medical.py runs/scan-ecg-labs.parquet   # and the constructed table

Regularisation is chosen within the training rows, never on test: by 3-fold cross-validation (mitbih: with
patients apart), for ridge by leaving one row out.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from modalign.tasks.retrieval import retrieval_metrics
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

DATA = Path(os.environ.get("MODALIGN_DATA", "../shared/data"))
warnings.filterwarnings("ignore", module="sklearn")
warnings.filterwarnings("ignore", category=FutureWarning)
CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def pixels(cells: pd.Series, side: int) -> np.ndarray:
    """``(N, side * side)`` grey values from 0 to 1."""
    small = [Image.open(io.BytesIO(c["bytes"])).convert("L").resize((side, side)) for c in cells]
    return np.stack([np.asarray(s, np.float32).reshape(-1) / 255 for s in small])


def beats(cells: pd.Series) -> np.ndarray:
    """``(N, leads * L)`` millivolts, each lead's median at zero."""
    signal = np.stack([np.stack(list(c)) for c in cells]).astype(np.float32) / 200
    return (signal - np.median(signal, 2, keepdims=True)).reshape(len(cells), -1)


def logistic(
    x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, groups: np.ndarray | None
) -> str:
    folds = 3 if groups is None else list(GroupKFold(3).split(x[train], y[train], groups[train]))
    model = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=CS, cv=folds, max_iter=300))
    model.fit(x[train], y[train])
    found, most = model.predict(x[test]), pd.Series(y[train]).mode()[0]
    often = pd.Series(y[test]).value_counts(normalize=True).iloc[0]
    balanced = balanced_accuracy_score(y[test], np.where(np.isin(found, y[test]), found, most))
    return (
        f"accuracy {accuracy_score(y[test], found):.3f}  balanced {balanced:.3f}  "
        f"(most frequent class of the test rows {often:.3f})"
    )


def splits(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(table.split == "train"), np.flatnonzero(table.split == "test")


def mednist() -> None:
    table = pd.read_parquet(DATA / "mednist.parquet")
    x = pixels(table.image, 32)
    print("mednist, 32 x 32 pixels, logistic:", logistic(x, table.label.to_numpy(), *splits(table), None))


def mitbih() -> None:
    table = pd.read_parquet(DATA / "mitbih_beats.parquet")
    x = beats(table.ecg)
    result = logistic(x, table.text.to_numpy(), *splits(table), table.record.to_numpy())
    print("mitbih, 2 x 256 samples, logistic:", result)


def notes() -> None:
    """Ridge from pixels to MiniLM's mean token, the scan's note among the distinct notes, and back."""
    from modalign_text.minilm import MiniLM
    from modalign_text.modality import Text

    table = pd.read_parquet(DATA / "cxr_notes.parquet")
    x, (train, test) = pixels(table.image, 32), splits(table)
    text, encoder, vectors = Text(), MiniLM().eval(), []
    for start in range(0, len(table), 32):
        with torch.no_grad():
            found = encoder(text.collate([text.read(t) for t in table.text[start : start + 32]]))
        weights = found.mask.unsqueeze(2).float()
        vectors.append(((found.tokens * weights).sum(1) / weights.sum(1)).numpy())
    y = np.concatenate(vectors)
    y = y / np.linalg.norm(y, axis=1, keepdims=True)
    middle, scale = y[train].mean(0), StandardScaler().fit(x[train])
    model = RidgeCV(alphas=np.logspace(2, 7, 11)).fit(scale.transform(x[train]), y[train] - middle)
    guess = torch.tensor(model.predict(scale.transform(x[test])))
    words = list(dict.fromkeys(table.text.iloc[test]))
    first = [int(np.flatnonzero(table.text == w)[0]) for w in words]
    notes_ = torch.tensor(y[first] - middle)
    guess, notes_ = (torch.nn.functional.normalize(v.float(), dim=1) for v in (guess, notes_))
    right = [[words.index(t)] for t in table.text.iloc[test]]
    back = [[i for i, r in enumerate(right) if r == [j]] for j in range(len(words))]
    for name, metrics in (
        ("scan->report", retrieval_metrics(guess, notes_, right)),
        ("report->scan", retrieval_metrics(notes_, guess, back)),
    ):
        print(f"cxr_notes, ridge, {name}:", "  ".join(f"{k} {v:.3f}" for k, v in metrics.items()))


def together(path: Path) -> None:
    table = pd.read_parquet(path)
    table = table[table.ecg.notna() & table.labs.notna()].reset_index(drop=True)
    labs = pd.DataFrame(list(table.labs)).astype(float)
    labs = labs.fillna(labs[table.split == "train"].median())
    x = np.hstack([beats(table.ecg), np.log(labs.to_numpy())])
    print(
        "scan-ecg-labs, beat and values, logistic:",
        logistic(x, table.scan_group.to_numpy(), *splits(table), None),
    )


if __name__ == "__main__":
    mednist()
    mitbih()
    notes()
    for argument in sys.argv[1:]:
        together(Path(argument))
