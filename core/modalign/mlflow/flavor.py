"""A space as an MLflow model: its folder with what MLflow wants beside it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalign.errors import UserError
from modalign.spec import Spec

if TYPE_CHECKING:
    from modalign.space import Space

FLAVOR_NAME = "modalign"
HOME = "modalign.mlflow"
"""What MLflow imports to load one; saved models name it, so it stays."""

Example = Mapping[str, Sequence[Any]]


def get_default_pip_requirements(space: Space | None = None) -> list[str]:
    """modalign and, with a space, the distributions of the plugins it uses, in the versions here."""
    from modalign import __version__
    from modalign.space_files import config

    return _requirements(config(space) if space is not None else {"modalign": __version__, "plugins": {}})


def save_model(
    space: Space,
    path: str | os.PathLike[str],
    *,
    input_example: Any = None,
    signature: Any = None,
    pip_requirements: Sequence[str] | str | None = None,
    extra_pip_requirements: Sequence[str] | str | None = None,
    metadata: dict[str, Any] | None = None,
    mlflow_model: Any = None,
) -> None:
    """Write an MLflow model: a space folder with ``MLmodel``, environment files and an example.

    Inputs:
        path: a new or an empty folder.
        input_example: a table as ``predict`` takes it, or ``{modality: values}`` as ``table`` does; by
            default a sentence, if the space has a modality whose values are strings.
        signature: by default columns ``modality`` and ``value`` -> ``(N, D)`` float32.
        pip_requirements, extra_pip_requirements: as everywhere in MLflow; by default modalign and the
            plugins that the space uses, in their versions.

    Raises:
        UserError: if ``space`` is none.
        mlflow.exceptions.MlflowException: if the folder holds something.
    """
    from mlflow.models.utils import _save_example
    from mlflow.utils.environment import _validate_env_arguments
    from mlflow.utils.model_utils import _validate_and_prepare_target_save_path

    from modalign.space import Space
    from modalign.space_files import CONFIG

    if not isinstance(space, Space):
        raise UserError(
            f"{FLAVOR_NAME} models are spaces, not {type(space).__name__}: give what load returns"
        )
    _validate_env_arguments(None, pip_requirements, extra_pip_requirements)
    folder = Path(path).absolute()
    _validate_and_prepare_target_save_path(folder)
    space.save(folder)
    model = _new_model(mlflow_model)
    example = _example(space) if input_example is None else input_example
    if example is not None:
        _save_example(model, _as_table(example), str(folder))
    model.signature = signature if signature is not None else model.signature
    model.metadata = metadata if metadata is not None else model.metadata
    model.model_size_bytes = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    write_beside(folder, about, model, pip_requirements, extra_pip_requirements)


def log_model(
    space: Space,
    name: str = "space",
    *,
    registered_model_name: str | None = None,
    **more: Any,
) -> Any:
    """Log a space to the active MLflow run, and register it if told a name; returns its ``ModelInfo``.

    Inputs:
        name: of the logged model.
        registered_model_name: what ``models:/NAME/1`` names.
        more: as for ``save_model`` and ``mlflow.models.Model.log`` (``input_example``, ``params``,
            ``tags``, ``step``, …).
    """
    from mlflow.models import Model

    return Model.log(
        artifact_path=None,
        name=name,
        flavor=sys.modules[HOME],
        registered_model_name=registered_model_name,
        space=space,
        **more,
    )


def load_model(model_uri: str | os.PathLike[str], dst_path: str | None = None, device: str = "cpu") -> Space:
    """The space of an MLflow model: a folder, ``models:/NAME/1``, ``runs:/ID/space``, ….

    Raises:
        UserError: if there is none, or a plugin it needs is missing, with the command that installs it.
    """
    from modalign.space_files import download, load

    return load(download(os.fspath(model_uri), dst_path), device)


def write_beside(
    folder: Path,
    about: Mapping[str, Any],
    model: Any = None,
    pip_requirements: Any = None,
    extra_pip_requirements: Any = None,
) -> None:
    """Write what makes a space folder an MLflow model: ``MLmodel``, ``requirements.txt``, environments.

    Inputs:
        about: the space's ``config.json``.
        model: MLflow's ``Model`` to complete; default: a new one.
    """
    import yaml
    from mlflow import pyfunc
    from mlflow.utils import environment as env

    model = _new_model(model)
    if model.signature is None:
        model.signature = _signature(about["dim"])
    model.add_flavor(
        FLAVOR_NAME,
        modalign_version=about["modalign"],
        plugins=about["plugins"],
        modalities=list(about["modalities"]),
        dim=about["dim"],
    )
    pyfunc.add_to_model(
        model, loader_module=HOME, conda_env=env._CONDA_ENV_FILE_NAME, python_env=env._PYTHON_ENV_FILE_NAME,
        model_config={"device": "cpu"},
    )  # fmt: skip
    model.save(str(folder / "MLmodel"))
    given = None if pip_requirements is not None else _requirements(about)
    conda, requirements, constraints = env._process_pip_requirements(
        given, pip_requirements, extra_pip_requirements
    )
    env._PythonEnv.current().to_yaml(str(folder / env._PYTHON_ENV_FILE_NAME))
    (folder / env._CONDA_ENV_FILE_NAME).write_text(yaml.safe_dump(conda, sort_keys=False))
    (folder / env._REQUIREMENTS_FILE_NAME).write_text("\n".join(requirements) + "\n", encoding="utf-8")
    if constraints:
        (folder / env._CONSTRAINTS_FILE_NAME).write_text("\n".join(constraints) + "\n", encoding="utf-8")


def _requirements(about: Mapping[str, Any]) -> list[str]:
    plugins = {name: version for name, version in about["plugins"].items() if name != "modalign"}
    extras: dict[str, set[str]] = {name: set() for name in plugins}
    for entry in about.get("modalities", {}).values():
        distribution = Spec.of(entry["encoder"]).name.partition(":")[0]
        extras.get(distribution, set()).update(entry.get("extras", ()))
    named = {name: f"[{','.join(sorted(found))}]" if found else "" for name, found in extras.items()}
    return [f"modalign=={about['modalign']}", *(f"{n}{named[n]}=={plugins[n]}" for n in sorted(plugins))]


def _signature(dim: int) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    columns: Any = [ColSpec("string", "modality"), ColSpec("string", "value")]
    return ModelSignature(Schema(columns), Schema([TensorSpec(np.dtype("float32"), (-1, dim))]))


def _example(space: Space) -> dict[str, list[str]] | None:
    """One value of a modality whose values are strings; the others' examples are no table cells."""
    for name in space.modalities:
        if space.reader(name).literal:
            (item,) = space.reader(name).example(1)
            if isinstance(item, str):
                return {name: [item]}
    return None


def _as_table(example: Any) -> Any:
    from .served import table

    return table(example) if isinstance(example, Mapping) else example


def _new_model(model: Any) -> Any:
    from mlflow.models import Model

    return Model() if model is None else model
