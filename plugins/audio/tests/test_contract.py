"""The contract kit over everything this plugin offers; hf-audio's families are in test_audio_hf.py."""

from modalign.testing import parametrize_checks


@parametrize_checks("modalign-audio")
def test_contract(check):
    check()
