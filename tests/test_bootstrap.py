"""Bootstrap intervals: against scipy, and for what they must not do."""

import numpy as np
import pytest
import torch
from modalign.tasks.bootstrap import interval


def test_the_mean_agrees_with_scipy():
    from scipy.stats import bootstrap

    values = torch.rand(200, generator=torch.Generator().manual_seed(0))
    oracle = bootstrap((values.numpy(),), np.mean, method="percentile", n_resamples=4000, random_state=0)
    low, high = interval(values, draws=4000)
    assert low == pytest.approx(oracle.confidence_interval.low, abs=4e-3)
    assert high == pytest.approx(oracle.confidence_interval.high, abs=4e-3)


def test_a_statistic_of_ones_own():
    values = torch.arange(101.0)
    low, high = interval(values, lambda v: v.median())
    assert 30 < low < 50 < high < 70


def test_it_covers_the_truth_about_as_often_as_it_says():
    g = torch.Generator().manual_seed(1)
    truth = 0.3
    inside = 0
    for i in range(200):
        low, high = interval((torch.rand(80, generator=g) < truth).float(), seed=i, draws=200)
        inside += low <= truth <= high
    assert 0.88 < inside / 200 <= 1


def test_samples_of_one_group_move_together():
    values = torch.rand(20, generator=torch.Generator().manual_seed(0)).repeat_interleave(10)
    alone, together = interval(values), interval(values, groups=torch.arange(20).repeat_interleave(10))
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_edges():
    assert interval(torch.ones(5)) == (1.0, 1.0)
    assert interval(torch.tensor([0.25])) == (0.25, 0.25)
    assert all(np.isnan(interval(torch.empty(0))))
    assert interval(torch.rand(9), seed=3) != interval(torch.rand(9), seed=4)
    values = torch.rand(9)
    assert interval(values, seed=3) == interval(values, seed=3)
