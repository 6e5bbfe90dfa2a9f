"""Linear models on plain features of Nottingham's tunes, on the split that examples/nottingham.yaml uses.

    MODALIGN_DATA=FOLDER python benchmarks/plain_music.py

Character n-grams of the notes alone (tf-idf) with logistic regression to metre, kind and key, and with ridge
regression to MiniLM's embedding of the text; strengths are chosen on `val`. First with the training tunes as
they are, then, where examples/nottingham/make_table.py has been run, in other keys too.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from modalign_text.minilm import MiniLM
from modalign_text.modality import Text
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

FOLDER = Path(os.environ.get("MODALIGN_DATA", "../shared/data"))
KEYS = Path(__file__).parents[1] / "runs" / "nottingham.parquet"


def embedded(texts: list[str]) -> np.ndarray:
    """MiniLM's sentence embeddings, unit rows ``(N, 384)``."""
    reader, encoder, rows = Text(), MiniLM().eval(), []
    with torch.no_grad():
        for start in range(0, len(texts), 64):
            features = encoder(reader.collate([reader.read(t) for t in texts[start : start + 64]]))
            mask = features.mask[..., None]  # (N, T, 1)
            rows.append((features.tokens * mask).sum(1) / mask.sum(1))  # (N, 384)
    return torch.nn.functional.normalize(torch.cat(rows), dim=1).numpy()


def ranks(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Of each query's own candidate, ties against it."""
    scores = queries @ candidates.T
    return (scores >= scores.diagonal()[:, None] - 1e-9).sum(1)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def retrieval(features: dict, texts: dict) -> None:
    """Score to text and back, by the ridge that ranks best on ``val``."""
    best = max(
        (
            (1 / ranks(unit(model.predict(features["val"])), texts["val"])).mean(),
            alpha,
            model,
        )
        for alpha in (0.01, 0.1, 1.0, 10.0)
        for model in [Ridge(alpha).fit(features["train"], texts["train"])]
    )
    found = unit(best[2].predict(features["test"]))
    for name, r in (
        ("score->text", ranks(found, texts["test"])),
        ("text->score", ranks(texts["test"], found)),
    ):
        print(f"  {name}  R@1 {(r == 1).mean():.3f}  R@10 {(r <= 10).mean():.3f}  MRR {(1 / r).mean():.3f}")


def probes(features: dict, table: dict) -> None:
    for label in ("meter", "kind", "key"):
        models = [
            LogisticRegression(C=c, max_iter=1000).fit(features["train"], table["train"][label])
            for c in (1, 10, 100)
        ]
        best = max(models, key=lambda m: m.score(features["val"], table["val"][label]))
        most = table["train"][label].mode()[0]
        print(
            f"  {label:5}  {best.score(features['test'], table['test'][label]):.3f}"
            f"  (majority {(table['test'][label] == most).mean():.3f})"
        )


def main() -> None:
    plain = pd.read_parquet(FOLDER / "nottingham.parquet").rename(columns={"abc_notes_only": "score"})
    tables = {"tunes as they are": plain}
    if KEYS.exists():
        tables["tunes in other keys too"] = pd.read_parquet(KEYS)
    for name, whole in tables.items():
        table = {split: whole[whole.split == split] for split in ("train", "val", "test")}
        words = TfidfVectorizer(
            analyzer="char", ngram_range=(1, 4), sublinear_tf=True, min_df=2, lowercase=False
        )
        words.fit(table["train"].score)
        features = {split: words.transform(rows.score) for split, rows in table.items()}
        print(f"{name}: {len(table['train'])} to learn from, {features['train'].shape[1]} n-grams")
        probes(features, table)
        retrieval(features, {split: embedded(rows.text.tolist()) for split, rows in table.items()})


if __name__ == "__main__":
    main()
