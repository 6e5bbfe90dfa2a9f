"""The contract kit over everything this plugin offers."""

from modalign.testing import parametrize_checks
from modalign_dna.task import MutualNeighbours


@parametrize_checks("modalign-dna", instances={"mutual-neighbours": lambda: MutualNeighbours("dna", "other")})
def test_contract(check):
    check()
