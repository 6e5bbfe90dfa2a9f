"""The contract kit over everything this plugin offers."""

from modalign.testing import parametrize_checks


@parametrize_checks("modalign-music")
def test_contract(check):
    check()
