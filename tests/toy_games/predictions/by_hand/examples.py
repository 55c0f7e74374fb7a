"""Two losses and a comparison that every case worked by hand needs."""

import numpy as np

from theory import objectives

SPIN, SPIF = objectives.get("spin"), objectives.get("spif")


def close(found, expected, rtol=1e-12):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)
