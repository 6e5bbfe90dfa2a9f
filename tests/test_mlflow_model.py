"""The MLflow flavour: a space logged, registered, loaded by URI and served by MLflow's own server."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import modalign
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from modalign import Space
from modalign.mlflow import get_default_pip_requirements, load_model, log_model, save_model, table

from .mlflow_servers import ask, free_port, start, stop

Plan = dict[str, Any]


@pytest.fixture
def space(plan: Plan, in_tmp: Path) -> Space:
    return modalign.align(plan)


@pytest.fixture(autouse=True)
def _tracking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow remembers its URIs in the process and in the environment."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    yield
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)


def values(digits: Path, modality: str, n: int = 3) -> list[Any]:
    cells = pq.read_table(digits).slice(0, n)[modality].to_pylist()
    return [c["bytes"] if isinstance(c, dict) else c[0] for c in cells]


def mixed(digits: Path) -> tuple[pd.DataFrame, list[tuple[str, Any]]]:
    """A table of all modalities, shuffled, and what each row is."""
    rows = [(m, v) for m in ("image", "text", "audio") for v in values(digits, m)]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    return pd.concat([table({m: [v]}) for m, v in rows], ignore_index=True), rows


def expected(space: Space, rows: list[tuple[str, Any]]) -> np.ndarray:
    return torch.cat([space.embed(m, [v]) for m, v in rows]).numpy()


def test_a_saved_model_is_a_space_folder_and_a_pyfunc(space: Space, digits: Path, tmp_path: Path) -> None:
    save_model(space, tmp_path / "model", metadata={"of": "digits"})
    asked, rows = mixed(digits)
    for loaded in (load_model(tmp_path / "model"), modalign.load(tmp_path / "model")):
        assert torch.equal(loaded.embed("text", ["one"]), space.embed("text", ["one"]))
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    found = served.predict(asked)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(space, rows), atol=1e-6)
    about = Model.load(str(tmp_path / "model"))
    assert about.flavors["modalign"]["modalities"] == ["image", "text", "audio"]
    assert about.metadata == {"of": "digits"}
    assert about.signature.inputs.input_names() == ["modality", "value"]
    assert about.signature.outputs.inputs[0].shape == (-1, space.dim)
    example = about.load_input_example(str(tmp_path / "model"))
    assert served.predict(example).shape == (1, space.dim)


def test_requirements_are_modalign_and_the_plugins_used(space: Space, tmp_path: Path) -> None:
    save_model(space, tmp_path / "model")
    told = set((tmp_path / "model" / "requirements.txt").read_text().split())
    here = {
        f"{name}=={version}"
        for name, version in json.loads((tmp_path / "model" / "config.json").read_text())["plugins"].items()
    }
    assert {line.split("==")[0] for line in here} == {
        "modalign", "modalign-image", "modalign-text", "modalign-audio",
    }  # fmt: skip
    assert here <= told
    assert {line.split("==")[0] for line in told - here} <= {"mlflow"}  # MLflow adds itself
    save_model(space, tmp_path / "more", extra_pip_requirements=["gensim"])
    assert "gensim" in (tmp_path / "more" / "requirements.txt").read_text().split()


def test_requirements_name_the_extras_that_an_encoder_was_built_with(space: Space, tmp_path: Path) -> None:
    space.entries["text"] = replace(space.entries["text"], extras=("minilm", "lora"))
    assert any(
        line.startswith("modalign-text[lora,minilm]==") for line in get_default_pip_requirements(space)
    )
    save_model(space, tmp_path / "model")
    assert load_model(tmp_path / "model").entries["text"].extras == ("minilm", "lora")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("smell", "x"), "no modality 'smell'"),
        ((None, "x"), "no modality"),
        (("image", "/etc/hostname"), "cannot read|base64"),  # no path is opened
        (("image", "not base64!"), "base64"),
        (("image", base64.b64encode(b"no picture").decode()), "cannot read"),
        (("image", '{"path": "/etc/hostname"}'), "cannot read"),
        (("image", "[1, 2"), "JSON"),
        (("image", None), "base64"),
        (("text", None), "cannot read"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(
    space: Space, row: tuple[Any, Any], words: str, in_tmp: Path
) -> None:
    served = modalign.mlflow.ServedSpace(space)
    with pytest.raises(MlflowException, match=words) as caught:
        served.predict(pd.DataFrame([row], columns=["modality", "value"]))
    assert caught.value.get_http_status_code() == 400
    with pytest.raises(MlflowException, match="column 'modality'"):
        served.predict(pd.DataFrame({"value": ["x"]}))


def test_a_path_in_a_request_is_never_read(space: Space, digits: Path, in_tmp: Path) -> None:
    (in_tmp / "abcd").write_bytes(values(digits, "image")[0])  # a name that is base64 too
    with pytest.raises(MlflowException):
        modalign.mlflow.ServedSpace(space).predict(table({"image": ["abcd"]}))


def test_table_takes_paths_bytes_and_data_urls(space: Space, digits: Path, in_tmp: Path) -> None:
    picture = values(digits, "image")[0]
    Path("a.png").write_bytes(picture)
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    served = modalign.mlflow.ServedSpace(space)
    found = served.predict(table({"image": [Path("a.png"), picture, url]}), {"batch_size": 1})
    assert (found == found[0]).all()
    assert served.predict(table({})).shape == (0, space.dim)


def test_a_missing_plugin_is_named_with_its_command(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(space, tmp_path / "model")
    content = json.loads((tmp_path / "model" / "config.json").read_text())
    content["plugins"]["modalign-smell"] = "0.3.0"
    (tmp_path / "model" / "config.json").write_text(json.dumps(content))
    for load in (load_model, mlflow.pyfunc.load_model):
        with pytest.raises(Exception, match=r"modalign plugins install --unlisted 'modalign-smell==0.3.0'"):
            load(str(tmp_path / "model"))


def test_nothing_but_spaces_and_nothing_there(space: Space, tmp_path: Path) -> None:
    with pytest.raises(modalign.UserError, match="not Linear"):
        save_model(torch.nn.Linear(1, 1), tmp_path / "model")  # type: ignore[arg-type]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(MlflowException):
        save_model(space, tmp_path / "full")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(modalign.UserError, match="models:/nothing/1"):
        modalign.load("models:/nothing/1")


def test_a_finished_run_registers_as_it_is(plan: Plan, in_tmp: Path) -> None:
    """``runs:/ID/space`` is a space and an MLflow model; registered, so is ``models:/NAME/1``."""
    uri = f"sqlite:///{in_tmp}/mlflow.db"
    plan["track"] = {"uri": uri}
    space = modalign.align(plan)
    mlflow.set_tracking_uri(uri)
    (run,) = mlflow.search_runs(
        search_all_experiments=True, filter_string="run_name = 'tiny'", output_format="list"
    )
    mlflow.register_model(f"runs:/{run.info.run_id}/space", "digits")
    for each in (f"runs:/{run.info.run_id}/space", "models:/digits/1"):
        assert torch.equal(modalign.load(each).embed("text", ["one"]), space.embed("text", ["one"]))
        assert torch.equal(load_model(each).embed("text", ["one"]), space.embed("text", ["one"]))
        found = mlflow.pyfunc.load_model(each).predict(table({"text": ["one"]}))
        np.testing.assert_allclose(found, space.embed("text", ["one"]).numpy(), atol=1e-6)


# --- against the real servers --------------------------------------------------------------------


@pytest.mark.slow
def test_registered_on_a_server_and_served_over_http(space: Space, digits: Path, in_tmp: Path) -> None:
    port, serving = free_port(), free_port()
    uri = f"http://127.0.0.1:{port}"
    stores = [
        f"--backend-store-uri=sqlite:///{in_tmp}/server.db",
        f"--artifacts-destination={in_tmp}/artifacts",
    ]
    server = start(in_tmp, port, "/health", "server", "--workers", "1", *stores)
    model = None
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment("spaces")
        with mlflow.start_run():
            info = log_model(space, registered_model_name="digits", input_example={"text": ["one", "two"]})
        asked, rows = mixed(digits)
        wanted = expected(space, rows)
        for each in (info.model_uri, "models:/digits/1", "models:/digits/latest"):
            loaded = load_model(each)
            assert torch.equal(loaded.embed("text", ["one"]), space.embed("text", ["one"]))
        assert torch.equal(
            modalign.load("models:/digits/1").embed("text", ["one"]), space.embed("text", ["one"])
        )
        model = start(
            in_tmp, serving, "/ping", "models", "serve", "-m", "models:/digits/1", "--env-manager", "local",
            MLFLOW_TRACKING_URI=uri,
        )  # fmt: skip
        for form in ("dataframe_split", "dataframe_records"):
            np.testing.assert_allclose(np.array(ask(serving, asked, form)), wanted, atol=1e-6, rtol=0)
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(serving, table({"smell": ["x"]}))
        assert refused.value.code == 400
        assert "no modality 'smell'" in refused.value.read().decode()
    finally:
        stop(model)
        stop(server)
