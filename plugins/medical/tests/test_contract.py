"""The contract every plugin keeps; labs and its encoder with a reference of three analytes."""

import torch
from modalign.testing import parametrize_checks
from modalign_medical.labs import Labs
from modalign_medical.labs_mlp import LabsMLP

torch.set_num_threads(1)
REFERENCE = {
    "sodium": [120, 136, 140, 144, 160],
    "potassium": [2, 3.6, 4.1, 4.6, 7],
    "lactate": [0.2, 1, 1.6, 15],
}


@parametrize_checks(
    "modalign-medical", instances={"labs": lambda: Labs(REFERENCE), "labs-mlp": lambda: LabsMLP(REFERENCE)}
)
def test_contract(check):
    check()
