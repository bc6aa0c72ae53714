"""Sums whose bits do not depend on the other rows of a call."""

from __future__ import annotations

import numpy as np


def sum_last_axis(terms: np.ndarray) -> np.ndarray:
    """Sum terms of shape (..., n) over the last axis, by repeated halving.

    Each addition is element-wise on whole arrays. numpy's sums and matrix products
    process several rows at a time, and split a row depending on its neighbours, its
    position and the number of threads.
    """
    while (n := terms.shape[-1]) > 1:
        half = n // 2
        last = terms[..., 2 * half :]  # one term if n is odd, else none
        terms = terms[..., :half] + terms[..., half : 2 * half]
        terms[..., : last.shape[-1]] += last
    return terms[..., 0]
