"""A space to and from the Hugging Face hub, by that field's three verbs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from modalign.errors import UserError

from .card import told

if TYPE_CHECKING:
    from modalign.space import Space


def save_pretrained(space: Space, path: str | os.PathLike[str], **about: Any) -> None:
    """Write the space folder for others: the card says more, and no path of this machine is in it.

    Inputs:
        about: ``license`` ("apache-2.0"), ``language``, ``tags``, ``datasets`` (hub names) and
            ``results`` ``{task: {metric: number}}``; the space keeps what it was told, and the run that
            trained it has told the results.

    Raises:
        UserError: for another word, or if the folder holds something else than a space.
    """
    space.about.update(told(about))
    with _without_paths(space):
        space.save(Path(path))


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    device: str = "cpu",
) -> Space:
    """A space from a folder, an MLflow URI, or a repository on the hub (its cache, if offline).

    Inputs:
        revision: branch, tag or commit.
        local_files_only: take what the cache has; ``HF_HUB_OFFLINE=1`` says the same.

    Raises:
        UserError: if there is no such folder or repository, it is not in the cache while offline, or
            it cannot be loaded here.
    """
    from modalign.space_files import CARD, CONFIG, WEIGHTS, load

    text = os.fspath(source)
    if Path(text).exists() or ":/" in text or text.count("/") != 1 or text.startswith((".", "/", "~")):
        return load(text, device)
    hub = _client()
    with _refusals(f"{text} is no folder here, and the hub gives no such space"):
        folder = hub.snapshot_download(
            text, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only,
            allow_patterns=[CONFIG, WEIGHTS, CARD],
        )  # fmt: skip
    return load(folder, device)


def push_to_hub(
    space: Space,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload space",
    **about: Any,
) -> Any:
    """Upload a space to a repository of the hub, made if it is not there; returns its ``CommitInfo``.

    Inputs:
        repo_id: ``"you/name"``.
        about: as for ``save_pretrained``.

    Raises:
        UserError: if the hub refuses, or does not answer.
    """
    api = _client().HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(space, Path(folder) / "space", **about)
        with _refusals(f"the hub does not take {repo_id}"):
            name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            return api.upload_folder(
                repo_id=name, folder_path=Path(folder) / "space", commit_message=commit_message,
                revision=revision, create_pr=create_pr,
            )  # fmt: skip


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError("the Hugging Face hub needs its client: pip install huggingface_hub") from None
    return huggingface_hub


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """A hub that refuses or does not answer is a user's error; the client's are OSErrors and httpx's."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except Exception as error:
        transport = type(error).__module__.startswith(("httpx", "requests"))
        if not transport and not isinstance(error, OSError | HFValidationError):
            raise
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{what}: {said}") from error


@contextmanager
def _without_paths(space: Space) -> Iterator[None]:
    """The space's plan without its tracking server and the folders of its files: nobody else's business."""
    plan = space.plan
    space.plan = {key: _named(value) for key, value in plan.items() if key != "track"}
    try:
        yield
    finally:
        space.plan = plan


def _named(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _named(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_named(each) for each in value]
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute():
                return kind(value).name
    return value
