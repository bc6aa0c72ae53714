"""Sums whose bits do not depend on what else is summed in the same call."""

from __future__ import annotations

import numpy as np


def sum_last_axis(terms: np.ndarray) -> np.ndarray:
    """Sum terms (..., n) to (...), by halves.

    Each addition is one of whole arrays, element by element. numpy's own sums and
    matrix products go through several rows at a time, and where they split a row
    depends on its neighbours, its place and the number of threads.
    """
    while (n := terms.shape[-1]) > 1:
        half = n // 2
        last = terms[..., 2 * half :]  # the odd one, if there is one
        terms = terms[..., :half] + terms[..., half : 2 * half]
        terms[..., : last.shape[-1]] += last
    return terms[..., 0]
