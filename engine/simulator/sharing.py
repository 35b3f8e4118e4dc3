"""How long work takes that several share: a closed network of queues, solved by mean value analysis.

The units of an SM are stations, its groups of warps the customers, who go round them in no fixed order: what one waits for
is what the others hold. Nothing is fitted: with one customer times add up, with many the busiest station sets the pace.
Source: Reiser and Lavenberg 1980, Mean-value analysis of closed multichain queuing networks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def round_times(stations: Floats, delay: Floats, customers: int, steady: Floats | float = 0.0) -> Floats:
    """How long one round takes where 1, 2, ... customers go round: [customers, ...].

    Args:
        stations: time that one customer needs of each, were it alone: [stations, ...].
        delay: time that it spends where none waits for another: [...].
    """
    waiting = np.zeros_like(stations)
    used = np.zeros_like(stations)
    found = np.empty((customers, *delay.shape))
    for here in range(1, customers + 1):
        residence = stations * (1.0 + waiting - steady * used / 2)
        whole = np.maximum(residence.sum(axis=0) + delay, here * stations.max(axis=0))
        found[here - 1] = whole
        waiting = here * residence / np.where(whole > 0, whole, 1.0)
        used = here * stations / np.where(whole > 0, whole, 1.0)
    return found
