"""The compiled loop of lexical diversity."""

from typing import Any

import numba
import numpy as np

_compiled: Any = numba.njit(nogil=True, cache=True, boundscheck=False)


@_compiled
def mtld_rows(values, offsets, threshold, out):
    """Both directions of every row; a table of seen tokens is emptied by raising the stamp that says when."""
    longest = 1
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    size = 2
    while size < 2 * longest:
        size *= 2
    keys = np.zeros(size, dtype=np.uint64)
    stamps = np.zeros(size, dtype=np.int64)
    stamp = 0
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        number = stop - start
        if number == 0:
            continue
        total = 0.0
        for backwards in range(2):
            stamp += 1
            factors = 0.0
            types, count = 0, 0
            ratio = 1.0
            for at in range(number):
                value = values[stop - 1 - at] if backwards else values[start + at]
                place = np.int64(value & np.uint64(size - 1))
                while stamps[place] == stamp and keys[place] != value:
                    place = (place + 1) & (size - 1)
                if stamps[place] != stamp:
                    keys[place], stamps[place] = value, stamp
                    types += 1
                count += 1
                ratio = types / count
                if ratio <= threshold:
                    factors += 1.0
                    types, count = 0, 0
                    ratio = 1.0
                    stamp += 1
            if count:
                factors += (1.0 - ratio) / (1.0 - threshold)
            total += number / factors if factors > 0.0 else float(number)
        out[row] = total / 2.0
