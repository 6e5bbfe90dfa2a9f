"""The contract every plugin keeps."""

import torch
from modalign.testing import parametrize_checks

torch.set_num_threads(1)


@parametrize_checks("modalign-graph")
def test_contract(check):
    check()
