"""MLflow's flavour `modalign`: log, save, load and serve a space as an MLflow model."""

from .flavor import FLAVOR_NAME, get_default_pip_requirements, load_model, log_model, save_model
from .served import ServedSpace, table
from .served import _load_pyfunc as _load_pyfunc

__all__ = [
    "FLAVOR_NAME", "ServedSpace", "get_default_pip_requirements", "load_model", "log_model", "save_model",
    "table",
]  # fmt: skip
