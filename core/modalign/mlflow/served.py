"""A space behind MLflow's `predict`: a table of modality and value in, embeddings out."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalign.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from modalign.space import Space

COLUMNS = ("modality", "value")


def table(values: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """What ``predict`` takes, from ``{modality: values}``: a row for each value, in that order.

    Inputs:
        values: strings stay as they are; ``bytes``, and the content of the file that a ``Path`` names,
            become base64; lists, dicts and numbers become JSON.
    """
    import pandas as pd

    rows = [(modality, _cell(value)) for modality, some in values.items() for value in some]
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="object")


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Path):
        value = value.read_bytes()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    return json.dumps(value)


class ServedSpace:
    """MLflow's ``python_function`` of a space.

    Paths are not read: a server opens no file of its own because a request names it.

    Inputs:
        space: what embeds.
    """

    def __init__(self, space: Space) -> None:
        self.space = space

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> np.ndarray[Any, Any]:
        """Embeddings ``(N, D)`` float32 of a table's rows, in their order.

        Inputs:
            model_input: columns ``modality``, one of the space's, and ``value``: the string itself where
                strings are the items (a sentence), else base64 of a file's content (a data URL is fine)
                or, for what is no file, JSON.
            params: ``{"batch_size": n}``.

        Raises:
            mlflow.exceptions.MlflowException: for anything wrong with the request; a server answers 400.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._predict(model_input, **(params or {}))
        except (UserError, TypeError) as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _predict(self, model_input: Any, batch_size: int = 64) -> np.ndarray[Any, Any]:
        import numpy as np

        modalities, values = (list(_column(model_input, name)) for name in COLUMNS)
        found = np.empty((len(values), self.space.dim), dtype=np.float32)
        for modality in dict.fromkeys(modalities):
            rows = [i for i, name in enumerate(modalities) if name == modality]
            if not isinstance(modality, str):
                raise UserError(f"row {rows[0]} names no modality (there are: {self._known()})")
            literal = self.space.reader(modality).literal
            cells = [_value(values[i], i, modality, literal) for i in rows]
            found[rows] = self.space.embed(modality, cells, batch_size).numpy()
        return found

    def _known(self) -> str:
        return ", ".join(self.space.modalities)


def _column(model_input: Any, name: str) -> Iterable[Any]:
    try:
        return model_input[name]
    except (KeyError, IndexError, TypeError):
        raise UserError(f"the input needs a column {name!r}: send {' and '.join(COLUMNS)}") from None


def _value(value: Any, row: int, modality: str, literal: bool) -> Any:
    """A request's cell as a table would hold it; never a path."""
    if literal or isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise UserError(f"row {row}: a value of '{modality}' is base64 of a file's content, or JSON")
    text = value.strip()
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise UserError(f"row {row}: not JSON: {error}") from None
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(
            f"row {row}: a value of '{modality}' is base64 of a file's content, or JSON ({error})"
        ) from None


def _load_pyfunc(path: str | os.PathLike[str], model_config: Mapping[str, Any] | None = None) -> ServedSpace:
    """What ``mlflow.pyfunc.load_model`` and ``mlflow models serve`` call."""
    from modalign.space_files import load

    return ServedSpace(load(path, (model_config or {}).get("device") or "cpu"))
