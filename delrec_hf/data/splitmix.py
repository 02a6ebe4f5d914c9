"""Random numbers that follow from what they are for, whatever else is drawn: SplitMix64."""

import numpy as np
import numpy.typing as npt

KeyArray = npt.NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(seeds: KeyArray, place: KeyArray | int = 1) -> KeyArray:
    """Return one number of each seed's stream (Steele, Lea and Flood, 2014).

    Args:
        seeds: Any 64 bits each.
        place: Which number of the streams, the first being 1; shapes are broadcast.

    >>> seed = np.array([1234567], dtype=np.uint64)
    >>> [int(splitmix64(seed, place)[0]) for place in (1, 2, 3)]
    [6457827717110365317, 3203168211198807973, 9817491932198370423]
    """
    state = seeds + _STEP * np.asarray(place, dtype=np.uint64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
