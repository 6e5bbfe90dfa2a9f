"""What is asked of an MLflow server about runs; every function can be repeated safely."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .database import make_database
from .names import flatten, mlflow_name, redact

if TYPE_CHECKING:
    from modalign.contracts import Run

BATCH = 100
"""MLflow's limit on the parameters or tags of one request."""


class DeletedError(Exception):
    """The run that is looked for was deleted on the server."""


def connect(uri: str) -> Any:
    """An ``mlflow.MlflowClient``; a database is made and brought up to date.

    Raises:
        ValueError: if MLflow has no use for such a URI.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    make_database(uri)
    try:
        return MlflowClient(uri)
    except MlflowException as error:
        if error.error_code != "INTERNAL_ERROR":
            raise
        raise ValueError(str(error)) from error


def experiment_id(client: Any, name: str) -> str:
    """The experiment of that name, made if missing.

    Raises:
        ValueError: if it was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException as error:  # another process was faster, or its answer was lost
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage != "active":
        raise ValueError(
            f"experiment {name!r} was deleted; bring it back with `mlflow experiments restore "
            f"--experiment-id {found.experiment_id}` or name another one in the plan: track.experiment"
        )
    return found.experiment_id


def find(client: Any, run_id: str) -> Any:
    """The run of that id.

    Raises:
        DeletedError: if there is none or it was deleted.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise DeletedError(run_id) from error
    if found.info.lifecycle_stage != "active":
        raise DeletedError(run_id)
    return found


def find_or_make(
    client: Any, experiment: str, key: str, name: str, started_at: int, tags: Mapping[str, str]
) -> tuple[Any, bool]:
    """The run tagged with ``key``, and whether it was made now.

    A request without an answer may have made it already: hence the search.
    """
    known = client.search_runs([experiment], f"tags.`modalign.run_key` = '{key}'")
    if known:
        return known[0], False
    tags = {"modalign.run_key": key, "mlflow.user": _user(), **tags}
    return client.create_run(experiment, started_at, tags, name), True


def describe(client: Any, run_id: str, run: Run) -> None:
    """The plan as parameters, versions and origins as tags; credentials are left out.

    A parameter that is there already stays: MLflow lets none change.
    """
    from mlflow.entities import Param, RunTag
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

    told = {mlflow_name(name): redact(value)[:MAX_TAG_VAL_LENGTH] for name, value in _tags(run).items()}
    tags = [RunTag(name, value) for name, value in told.items()]
    for start in range(0, len(tags), BATCH):
        client.log_batch(run_id, tags=tags[start : start + BATCH], synchronous=True)
    known = client.get_run(run_id).data.params
    plan = {mlflow_name(name): redact(value)[:MAX_PARAM_VAL_LENGTH] for name, value in flatten(run.plan)}
    params = [Param(name, value) for name, value in plan.items() if name not in known]
    for start in range(0, len(params), BATCH):
        client.log_batch(run_id, params=params[start : start + BATCH], synchronous=True)


def _tags(run: Run) -> dict[str, str]:
    """``plugin.modalign-audio``, ``version.torch``, ``data_digest``, ``git_commit``, …"""
    tags = {"data_digest": run.data_digest}
    for distribution, version in run.versions.items():
        ours = distribution in ("modalign", "torch", "python")
        tags[f"{'version' if ours else 'plugin'}.{distribution}"] = version
    if run.git_commit:
        tags["git_commit"] = tags["mlflow.source.git.commit"] = run.git_commit
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except Exception:  # a container without a user database
        return "unknown"
