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

    Who comes to a station finds there those that wait, and one that is served: of its time a whole one is left where times are
    as random as arrivals, half of one where they are all the same. None is served faster than the busiest station can.
    Source: Reiser 1979, A queueing network analysis of computer communication networks with window flow control.

    Args:
        stations: time that one customer needs of each, were it alone: [stations, ...].
        delay: time that it spends where none waits for another: [...].
        steady: of each station, 0 where its times are random, 1 where they are all the same: [stations].
    """
    alike = np.reshape(steady, (-1, *[1] * delay.ndim)) / 2
    waiting, used = np.zeros_like(stations), np.zeros_like(stations)
    found = np.empty((customers, *delay.shape))
    for here in range(1, customers + 1):
        residence = stations * (1.0 + waiting - alike * used)
        whole = np.maximum(residence.sum(axis=0) + delay, here * stations.max(axis=0))
        found[here - 1] = whole
        pace = here / np.where(whole > 0, whole, 1.0)
        waiting, used = pace * residence, pace * stations
    return found
