"""Few-shot: name classes after a few examples, of one modality or helped by others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.contracts import Report, Split, Task
from modalign.errors import UserError

from .joint import as_names
from .labelled import Labelled, asked, labelled, learnt
from .linear_probe import logistic
from .probe import settings


class FewShot(Task):
    """A linear classifier learnt from ``k`` items per class, without and with those of other modalities.

    Lin et al., "Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal
    Models", CVPR 2023: since all modalities share one space, what another one shows of a class is an
    extra shot. Logistic regression on unit rows; each other modality weighs in each class as much
    as the shots themselves (their batches are half and half), so repeating it changes nothing. Both
    classifiers get the same shots, drawn anew for each seed; more shots contain the fewer.

    ``accuracy@k``, ``cross_accuracy@k`` and ``gain@k``, their difference, are means over the seeds, and
    their intervals Student's over the seeds: 95 % for other draws of shots, the judged items being
    the same. ``accuracy`` is the one with the most shots, of the better informed classifier.

    Inputs:
        modality: what is classified.
        cross: the modalities that help; none: only ``accuracy@k``.
        shots: the ``k``; a class with fewer items gives all it has.
        seeds: how many draws.
        C: the inverse strength of the regularisation; fixed, as so few shots leave nothing to choose
            it on.
        train: the split that shots are drawn from.

    Raises:
        UserError: if there are no labels, ``train`` has fewer than two classes of ``modality`` or is
            measured itself, or no item of another modality is of these classes.
    """

    primary: ClassVar[str] = "accuracy"

    def __init__(
        self,
        modality: str,
        cross: str | Iterable[str] = (),
        shots: int | Iterable[int] = (1, 2, 4, 8, 16),
        seeds: int = 5,
        C: float = 1.0,
        train: str = "train",
    ) -> None:
        self.modality = modality
        self.cross = as_names(cross) if cross else ()
        self.shots = settings("few_shot shots", shots)
        (self.C,) = settings("few_shot C", C)
        self.seeds, self.train = seeds, train
        if not all(isinstance(n, int) for n in (*self.shots, seeds)) or seeds < 1:
            raise UserError(f"few_shot shots {list(self.shots)}, seeds {seeds}: give whole numbers above 0")
        if modality in self.cross:
            raise UserError(f"few_shot of {modality} helped by {modality}: name another modality in `cross`")

    @property
    def modalities(self) -> tuple[str, ...]:
        return (self.modality, *self.cross)

    @property
    def about(self) -> str:
        return "<-".join([self.modality, *(["+".join(self.cross)] if self.cross else [])])

    def run(self, space: Any, data: Split) -> Report:
        known = learnt(space, data, self.train, (self.modality,))
        labels = known.labels  # (C,)
        items = asked(space, data, labels, (self.modality,))
        helpers = [labelled(space, data.other(self.train), (m,)).among(labels) for m in self.cross]
        for name, helper in zip(self.cross, helpers, strict=True):
            if not len(helper):
                raise UserError(f"no {name} of split {self.train!r} is of a class that {self.modality} has")
        found: dict[str, Tensor] = {}
        for k in self.shots:
            found[f"accuracy@{k}"] = self.accuracies(items, [known], k)  # (S,)
            if helpers:
                found[f"cross_accuracy@{k}"] = self.accuracies(items, [known, *helpers], k)
                found[f"gain@{k}"] = found[f"cross_accuracy@{k}"] - found[f"accuracy@{k}"]
        best = f"{'cross_' if helpers else ''}accuracy@{self.shots[-1]}"
        found = {"accuracy": found[best], **found}
        guess = items.chance(len(labels))
        sizes = {"items": len(items), "left_out": items.left_out, "classes": len(labels), "seeds": self.seeds}
        report = Report(
            {name: float(values.mean()) for name, values in found.items()},
            intervals={name: student(values) for name, values in found.items() if len(values) > 1},
            chance={name: 0.0 if name.startswith("gain") else guess for name in found},
            tables={"sizes": [sizes], "seeds": by_seed(found)},
        )
        report.figures["shots"] = figure(report, self, guess)
        return report

    def accuracies(self, items: Labelled, sources: list[Labelled], k: int) -> Tensor:
        """``(S,)`` accuracy on ``items`` after ``k`` shots per class of every source, by seed."""
        found = []
        for seed in range(self.seeds):
            drawn = [draw(source, k, seed) for source in sources]
            shots, weights = together(drawn)
            predicted = logistic(shots, items.vectors, self.C, weights)  # (Q,)
            found.append(items.right(predicted).double().mean())
        return torch.stack(found)


def draw(items: Labelled, k: int, seed: int) -> Labelled:
    """``k`` items of every class at random, or all it has; those of a smaller ``k`` among them."""
    order = torch.randperm(len(items.pairs), generator=torch.Generator().manual_seed(seed))  # (M,)
    order = order[items.pairs[order, 1].argsort(stable=True)]  # (M,) by class, then at random
    label = items.pairs[order, 1].contiguous()  # (M,)
    rank = torch.arange(len(label)) - torch.searchsorted(label, label)  # (M,) within its class
    return items.keep(items.pairs[order[rank < k].sort().values])


def together(sources: list[Labelled]) -> tuple[Labelled, Tensor]:
    """All shots, and ``(M,)`` weights: 1 in the first source; every other weighs as much in each class."""
    first, *_ = sources
    size = int(max(source.pairs[:, 1].max() for source in sources)) + 1
    wanted = first.pairs[:, 1].bincount(minlength=size).double()  # (C,)
    pairs, weights, offset = [], [], 0
    for source in sources:
        label = source.pairs[:, 1]  # (m,)
        weights.append((wanted / label.bincount(minlength=size))[label])  # (m,)
        pairs.append(source.pairs + torch.tensor([offset, 0]))
        offset += len(source)
    return Labelled(torch.cat([s.vectors for s in sources]), torch.cat(pairs)), torch.cat(weights)


def student(values: Tensor) -> tuple[float, float]:
    """The 95 % interval of the mean of ``(S,)`` values by Student's t, with S - 1 degrees of freedom."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * float(values.std()) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def by_seed(found: dict[str, Tensor]) -> list[dict[str, Any]]:
    """One row per seed: every number of that draw."""
    return [
        {"seed": seed, **{name: float(v) for name, v in zip(found, row, strict=True)}}
        for seed, row in enumerate(zip(*(values.tolist() for values in found.values()), strict=True))
    ]


def figure(report: Report, task: FewShot, guess: float) -> Any:
    """Accuracy over shots, a line for each classifier, bars for intervals."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(5, 3.5), layout="constrained")
    axes = drawing.subplots()
    lines = {"accuracy": task.modality, "cross_accuracy": " + ".join(task.modalities)}
    for shift, (name, label) in enumerate(lines.items() if task.cross else [*lines.items()][:1]):
        means = [report.metrics[f"{name}@{k}"] for k in task.shots]
        between = [
            report.intervals.get(f"{name}@{k}", (m, m)) for k, m in zip(task.shots, means, strict=True)
        ]
        bars = [[m - low, high - m] for m, (low, high) in zip(means, between, strict=True)]
        places = [k * 1.03**shift for k in task.shots]  # beside each other, not over
        axes.errorbar(places, means, list(zip(*bars, strict=True)), marker="o", capsize=3, label=label)
    axes.axhline(guess, linestyle=":", color="grey", label="chance")
    axes.set_xscale("log", base=2)
    axes.set_xticks(task.shots, [str(k) for k in task.shots])
    axes.set_xlabel("shots per class")
    axes.set_ylabel("accuracy")
    axes.legend()
    return drawing
