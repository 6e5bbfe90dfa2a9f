"""The contract kit over everything this plugin offers, with a width and, for the modality, without."""

from modalign.testing import parametrize_checks
from modalign_vector.identity import Identity
from modalign_vector.modality import Vector


@parametrize_checks(
    "modalign-vector", instances={"vector": lambda: Vector(5), "identity": lambda: Identity(8)}
)
def test_contract(check):
    check()


@parametrize_checks("modalign-vector")
def test_contract_without_arguments(check):
    check()
