"""Wilson's interval against an independent implementation and a published example."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from rlx.numerics.intervals import wilson


@pytest.mark.parametrize(("right", "trials"), [(0, 10), (1, 10), (5, 10), (10, 10), (412, 500), (3, 30), (1, 1)])
def test_wilson_is_what_scipy_gives(right, trials):
    expected = binomtest(right, trials).proportion_ci(0.95, method="wilson")
    assert wilson(right, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_newcombe_s_example():
    # Newcombe (1998), table I: 81 of 263, score method without continuity correction: .2553 to .3662.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
