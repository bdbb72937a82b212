"""The rule of conftest.py: a comparison whose tolerance could hide a difference fails, however close the numbers."""

import numpy as np
import pytest

NUMBERS = np.array([1.0, -0.25])


@pytest.mark.parametrize("tolerance", [{"rtol": 0.02}, {"atol": 0.02}, {"rtol": 0, "atol": 0.011}])
def test_a_tolerance_above_a_hundredth_is_refused_even_if_the_numbers_agree(tolerance):
    with pytest.raises(AssertionError, match="a tolerance of"):
        np.testing.assert_allclose(NUMBERS, NUMBERS, **tolerance)


@pytest.mark.parametrize("size", [1e-3, 1e-8, 0.0])
def test_a_tolerance_is_measured_against_the_largest_number(size):
    with pytest.raises(AssertionError, match="beside numbers of"):
        np.testing.assert_allclose(size * NUMBERS, size * NUMBERS, rtol=0, atol=1e-4)
    np.testing.assert_allclose(size * NUMBERS, size * NUMBERS, rtol=0.01, atol=1e-11)


def test_what_differs_by_more_than_the_tolerance_still_fails():
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        np.testing.assert_allclose(NUMBERS, 1.005 * NUMBERS, rtol=1e-3)
    np.testing.assert_allclose(NUMBERS, 1.005 * NUMBERS, rtol=0.01)
