"""One alignment of two frozen feature sets by each library, as its users would write it.

Every function takes the folder of ``two_views.write`` and returns the seconds of importing, setting up and
training, and the test rows' embeddings. The heads are linear, the loss is symmetric InfoNCE at one fixed
temperature, the optimiser is AdamW at one rate without decay or clipping; batches are drawn anew each epoch.
"""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from two_views import BATCH, DIM, EPOCHS, SCALE, WIDTHS, rate, read

Found = dict[str, Any]


def modalign(folder: Path, track: bool = False) -> Found:
    """A plan, through ``modalign.align``: everything that a run reads and writes is in its seconds."""
    clock = Clock()
    from modalign import align, load

    clock.lap("import")
    stage = {"name": "s", "align": ["a", "b"], "losses": {"infonce": 1.0}, "epochs": EPOCHS}
    stage |= {"batch_size": BATCH, "lr": rate(rows(folder)), "weight_decay": 0.0, "clip": None}
    plan = {
        "name": "views",
        "data": {"table": str(folder / "views.parquet"), "split": "split"},
        "modalities": {m: {"encoder": {"name": "identity", "width": w}} for m, w in WIDTHS.items()},
        "space": {
            "dim": DIM,
            "alignment": "linear",
            "projection": "mean",
            "dropout": 0.0,
            "temperature": 0.07,
        },
        "stages": [{**stage, "warmup": 0.0, "schedule": "constant"}],
        "track": {"uri": f"sqlite:///{folder}/mlflow.db" if track else None},
    }
    out = folder / f"run-{time.time_ns()}"
    align(plan, out=out)
    clock.lap("set-up")
    import json

    (told,) = json.loads((out / "report.json").read_text())["stages"]
    clock.seconds["training"] = told["seconds"]
    clock.seconds["set-up"] -= told["seconds"]
    space = load(out / "space")
    _, test = read(folder)
    return clock.found({m: space.embed(m, list(v)).numpy() for m, v in test.items()})


def bare(folder: Path) -> Found:
    """A loop over tensors in memory: the least that the arithmetic takes."""
    clock = Clock()
    import torch
    from torch.nn.functional import cross_entropy, normalize

    clock.lap("import")
    torch.manual_seed(0)
    train, test = tensors(folder)
    heads = {m: torch.nn.Linear(w, DIM) for m, w in WIDTHS.items()}
    parameters = [p for head in heads.values() for p in head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate(rows(folder)), weight_decay=0.0)
    clock.lap("set-up")
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(train["a"])).split(BATCH):
            a, b = (normalize(heads[m](train[m][chosen]), dim=1) for m in WIDTHS)
            scores, own = SCALE * a @ b.T, torch.arange(len(chosen))
            loss = (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    clock.lap("training")
    return clock.found(embedded(heads, test))


def sentence_transformers(folder: Path) -> Found:
    """A Router of two input modules, trained by SentenceTransformerTrainer."""
    clock = Clock()
    import datasets
    import torch
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.base.modules.input_module import InputModule
    from sentence_transformers.base.modules.router import Router
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import PrinterCallback

    clock.lap("import")
    datasets.disable_progress_bars()
    torch.manual_seed(0)

    class Head(InputModule):
        """A vector through a linear map."""

        modalities = ("audio",)  # what an array of numbers is taken for

        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(width, DIM)

        def preprocess(self, inputs: Any, prompt: str | None = None, **_: Any) -> dict[str, Any]:
            return {
                "sentence_embedding": torch.as_tensor(np.stack(inputs))
            }  # the key that a trainer looks for

        def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
            return {**features, "sentence_embedding": self.linear(features["sentence_embedding"])}

        def get_embedding_dimension(self) -> int:
            return DIM

        get_sentence_embedding_dimension = get_embedding_dimension

        def save(self, *_: Any, **__: Any) -> None:
            raise NotImplementedError

    train, test = read(folder)
    heads = {m: Head(w) for m, w in WIDTHS.items()}
    model = SentenceTransformer(modules=[Router({m: [head] for m, head in heads.items()})], device="cpu")
    loss = MultipleNegativesRankingLoss(
        model, scale=SCALE, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    given = Arguments(
        output_dir=str(folder / "st"),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=rate(rows(folder)),
        weight_decay=0.0,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        router_mapping={m: m for m in WIDTHS},
    )
    data = datasets.Dataset.from_dict(dict(train)).with_format("numpy")
    trainer = SentenceTransformerTrainer(model=model, args=given, train_dataset=data, loss=loss)
    trainer.remove_callback(PrinterCallback)
    clock.lap("set-up")
    trainer.train()
    clock.lap("training")
    return clock.found(embedded({m: head.linear for m, head in heads.items()}, tensors_of(test)))


def open_clip(folder: Path) -> Found:
    """open_clip's own ``train_one_epoch`` and ``ClipLoss`` on two linear towers."""
    clock = Clock()
    import torch
    from open_clip import ClipLoss
    from open_clip_train.train import train_one_epoch
    from torch.nn.functional import normalize
    from torch.utils.data import DataLoader, TensorDataset

    clock.lap("import")
    torch.manual_seed(0)
    logging.getLogger().setLevel(logging.WARNING)

    class Towers(torch.nn.Module):
        """Two linear towers that answer as CLIP does."""

        def __init__(self) -> None:
            super().__init__()
            self.heads = torch.nn.ModuleDict({m: torch.nn.Linear(w, DIM) for m, w in WIDTHS.items()})
            self.logit_scale = torch.nn.Parameter(torch.tensor(SCALE).log(), requires_grad=False)

        def forward(self, a: Any, b: Any) -> dict[str, Any]:
            image, text = (normalize(self.heads[m](x), dim=1) for m, x in (("a", a), ("b", b)))
            return {"image_features": image, "text_features": text, "logit_scale": self.logit_scale.exp()}

    train, test = tensors(folder)
    model = Towers()
    optimizer = torch.optim.AdamW(model.heads.parameters(), lr=rate(rows(folder)), weight_decay=0.0)
    loader = DataLoader(TensorDataset(train["a"], train["b"]), BATCH, shuffle=True)
    loader.num_batches, loader.num_samples = len(loader), len(train["a"])  # type: ignore[attr-defined]
    data = {"train": Namespace(dataloader=loader, set_epoch=lambda epoch: None)}
    options = Namespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=True, horovod=False,
        grad_clip_norm=None, rank=0, local_rank=0, world_size=1, batch_size=BATCH, log_every_n_steps=100,
        wandb=False, log_local=False,
    )  # fmt: skip
    clock.lap("set-up")
    for epoch in range(EPOCHS):
        train_one_epoch(model, data, ClipLoss(), epoch, optimizer, None, None, None, options)
    clock.lap("training")
    return clock.found(embedded(dict(model.heads.items()), test))


def mmlearn(folder: Path) -> Found:
    """mmlearn's ContrastivePretraining task on its CombinedDataset, trained by Lightning."""
    clock = Clock()
    import lightning
    import torch
    from mmlearn.datasets.core import CombinedDataset, DefaultDataCollator, Example, Modalities
    from mmlearn.modules.losses import ContrastiveLoss
    from mmlearn.tasks.contrastive_pretraining import ContrastivePretraining
    from torch.utils.data import DataLoader, Dataset

    clock.lap("import")
    torch.manual_seed(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Head(torch.nn.Module):
        """A modality's vectors through a linear map."""

        def __init__(self, name: str, width: int) -> None:
            super().__init__()
            self.name, self.linear = name, torch.nn.Linear(width, DIM)

        def forward(self, inputs: dict[str, Any]) -> tuple[Any]:
            return (self.linear(inputs[self.name]),)

    class Rows(Dataset):
        """The paired rows."""

        def __len__(self) -> int:
            return len(train["a"])

        def __getitem__(self, i: int) -> Any:
            return Example({**{m: train[m][i] for m in WIDTHS}, "example_index": i})

    for m in WIDTHS:
        Modalities.register_modality(m)
    train, test = tensors(folder)
    heads = {m: Head(m, w) for m, w in WIDTHS.items()}
    task = ContrastivePretraining(
        encoders=heads,
        optimizer=partial(torch.optim.AdamW, lr=rate(rows(folder)), weight_decay=0.0),
        init_logit_scale=SCALE,
        learnable_logit_scale=False,
        loss=ContrastiveLoss(),
        compute_validation_loss=False,
        compute_test_loss=False,
    )
    loader = DataLoader(CombinedDataset([Rows()]), BATCH, shuffle=True, collate_fn=DefaultDataCollator())
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=EPOCHS, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    clock.lap("set-up")
    trainer.fit(task, loader)
    clock.lap("training")
    return clock.found(embedded({m: head.linear for m, head in heads.items()}, test))


class Clock:
    """Seconds by name, each since the one before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now

    def found(self, embeddings: dict[str, np.ndarray]) -> Found:
        return {"seconds": self.seconds, "embeddings": embeddings}


def rows(folder: Path) -> int:
    return len(np.load(folder / "a.npy", mmap_mode="r"))


def tensors_of(views: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch

    return {m: torch.from_numpy(v) for m, v in views.items()}


def tensors(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    train, test = read(folder)
    return tensors_of(train), tensors_of(test)


def embedded(heads: Any, test: dict[str, Any]) -> dict[str, np.ndarray]:
    import torch
    from torch.nn.functional import normalize

    with torch.inference_mode():
        return {m: normalize(heads[m](x), dim=1).numpy() for m, x in test.items()}


WITH = {
    "modalign": modalign,
    "modalign, features cached": modalign,
    "modalign, cached, MLflow on": partial(modalign, track=True),
    "sentence-transformers": sentence_transformers,
    "bare PyTorch loop": bare,
    "mmlearn": mmlearn,
    "open_clip": open_clip,
    "bare PyTorch loop, beside them": bare,
}
OWN_ENVIRONMENT = ("mmlearn", "open_clip", "bare PyTorch loop, beside them")
"""What runs in the peers' own environment: they ask for another torch and NumPy."""
