"""How a stage's modules are run: compiled, activations computed again, matrix products in TF32."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .plan import Compile, Plan
from .reader import Reader

if TYPE_CHECKING:
    from .job import StageJob

log = logging.getLogger("modalign")
RECOMPILE = 512
"""Graphs of all modules together: one for each shape, modality and mode of each of them."""


class Speed:
    """Ways to run modules that hold inside ``applied`` alone: the space itself stays as it is.

    Inputs:
        checkpointed: modules whose activations the backward pass computes again.
        compiled: modules by what they are called in messages.
        options: of the compiler.
    """

    def __init__(
        self,
        checkpointed: Iterable[nn.Module] = (),
        compiled: Mapping[str, nn.Module] | None = None,
        options: Compile | None = None,
    ) -> None:
        self._blocks = [(m, attributes) for top in checkpointed for m, attributes in _recomputed(top)]
        self._compiled: list[tuple[nn.Module, Any]] = []
        self.failed = False
        if options is not None:
            self._compiled = [
                (m, partial(self._call, name, m, _compile(m, options)))
                for name, m in (compiled or {}).items()
            ]

    def __deepcopy__(self, memo: dict[int, Any]) -> Speed:
        return Speed()  # a copied module, such as a key tower's, runs as it is

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Modules run so inside, and as they did before afterwards."""
        with ExitStack() as stack:
            for module, attributes in self._blocks:
                stack.enter_context(_with_attributes(module, attributes))
            if self._compiled and not self.failed:
                stack.enter_context(_compiler_settings())
                for module, call in self._compiled:
                    stack.enter_context(_with_attributes(module, {"_compiled_call_impl": call}))
            yield

    def _call(self, name: str, module: nn.Module, compiled: Any, *args: Any, **kwargs: Any) -> Any:
        """The compiled module; the module itself from the first time on that the compiler fails."""
        if not self.failed:
            try:
                return compiled(*args, **kwargs)
            except torch._dynamo.exc.TorchDynamoException as error:
                self.failed = True
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                log.warning(
                    "cannot compile %s: %s. The stage goes on uncompiled: install a C++ compiler (for a GPU: "
                    "Triton), or take 'compile' from the plan",
                    name,
                    reason,
                )
        return module._call_impl(*args, **kwargs)


def stage_speed(job: StageJob) -> Speed:
    """What a plan asks for in one stage."""
    space, compiler = job.space, job.plan.speed.compiler
    running = [m for m, reader in job.readers.items() if isinstance(reader, Reader) and reader.cache is None]
    encoders = {m: _core(space.encoder(m)) for m in running}
    shared = {f"the alignment layer of {m}": space.layers[m] for m in job.stage.align}
    shared["the projection"] = space.projection
    again = [*shared.values(), *(e for m, e in encoders.items() if f"encoder:{m}" in job.trained)]
    return Speed(
        again if job.stage.activation_checkpointing else (),
        shared | {f"the encoder of {m}": encoder for m, encoder in encoders.items()} if compiler else {},
        compiler,
    )


@contextmanager
def matrix_products(plan: Plan) -> Iterator[None]:
    """TF32 products of float32 matrices inside, if the plan wants them."""
    before = torch.get_float32_matmul_precision()
    try:
        if plan.speed.tf32:
            torch.set_float32_matmul_precision("high")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _core(encoder: nn.Module) -> nn.Module:
    """The one child that holds all weights, where there is one: around it stand tokenizers and the like."""
    every = sum(1 for _ in encoder.parameters()) + sum(1 for _ in encoder.buffers())
    for child in encoder.children():
        if every and sum(1 for _ in child.parameters()) + sum(1 for _ in child.buffers()) == every:
            return child
    return encoder


def _compile(module: nn.Module, options: Compile) -> Any:
    from torch import _inductor

    # Dropout draws what it draws uncompiled, so that chunks replay it and results stay the same.
    settings = {**_inductor.list_mode_options(options.mode), "fallback_random": True}

    def call(*args: Any, **kwargs: Any) -> Any:  # torch.nn's own functions are never compiled by themselves
        return module._call_impl(*args, **kwargs)

    return torch.compile(call, dynamic=options.dynamic, options=settings)


@contextmanager
def _compiler_settings() -> Iterator[None]:
    import torch._dynamo.config
    import torch._functorch.config

    # The backward pass is compiled with the forward pass, where a failure can still be answered.
    with (
        torch._dynamo.config.patch(recompile_limit=RECOMPILE, accumulated_recompile_limit=RECOMPILE),
        torch._functorch.config.patch(force_non_lazy_backward_lowering=True),
    ):
        yield


def _recomputed(top: nn.Module) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
    """The layers of a module, each with what makes its activations be computed again."""
    again = partial(checkpoint, use_reentrant=False)
    own = [m for m in top.modules() if hasattr(m, "gradient_checkpointing")]
    if own:  # transformers' models know how, and leave their key-value caches out
        yield from ((m, {"gradient_checkpointing": True, "_gradient_checkpointing_func": again}) for m in own)
    else:
        yield from ((m, {"forward": partial(again, m.forward)}) for m in _layers(top))


def _layers(top: nn.Module) -> list[nn.Module]:
    """The members of the outermost lists of layers; the module itself if it has none."""
    found: list[nn.Module] = []
    queue = [top]
    while queue:
        module = queue.pop()
        children = list(module.children())
        if (
            isinstance(module, nn.ModuleList | nn.Sequential)
            and children
            and all(_composed(c) for c in children)
        ):
            found += children
        else:
            queue += children
    return found or [top]


def _composed(module: nn.Module) -> bool:
    return any(True for _ in module.children())


_ABSENT = object()


@contextmanager
def _with_attributes(module: nn.Module, attributes: Mapping[str, Any]) -> Iterator[None]:
    """A module's own attributes set inside, and as they were afterwards."""
    own = module.__dict__
    before = {name: own.get(name, _ABSENT) for name in attributes}
    own.update(attributes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is _ABSENT:
                del own[name]
            else:
                own[name] = value
