"""Warnings of value ranges that do not suit the values."""

from __future__ import annotations

import math

import numpy as np

from skvae.data.storage import StoredImages, chunk_length, chunks
from skvae.data.value_range import value_limits
from skvae.exceptions import warn_user

# A range is too wide if the bulk of the values, without those at either end, fills a
# smaller part of it.
_MIN_FILLED = 0.1
_TAIL = 0.02

# A bright object on black is ordinary: then most images fill more of the range.
_FILLED_BY_IMAGE = 0.25

# Neither the extremes nor the most frequent value, which may stand for missing data,
# but all other values fill a smaller part of the range.
_MIN_FILLED_BETWEEN = 0.02

# X is in other units if a larger part of its values is far outside of the range.
_MAX_OUTSIDE = 0.05

# From this width on a range is none of values that were scaled to [0, 1] or [-1, 1].
_WIDTH_UNSCALED = 10.0

# So many images are in other units if they fill a smaller part of the range together.
_MANY_IMAGES = 10
_MIN_FILLED_BY_MANY = 0.02


def suitable_range(
    sample: np.ndarray, value_range: tuple[float, float]
) -> tuple[float, float] | None:
    """Value range of the bulk of the values, or None if they fill the given one.

    A few outliers, values that stand for missing data, or a range that is given too
    wide leave all other values in a small part of the range. The network then sees
    images with hardly any contrast.
    """
    low, high = value_range
    width = high - low
    values = np.sort(sample, axis=None)
    n_tail = int(_TAIL * len(values))
    first, last = float(values[n_tail]), float(values[len(values) - 1 - n_tail])
    if first < last and last - first < _MIN_FILLED * width:
        by_image = np.ptp(sample.reshape(len(sample), -1).astype(np.float64), axis=1)
        if np.median(by_image) < _FILLED_BY_IMAGE * width:
            margin = (last - first) / 2.0
            return _limits_within(values, first - margin, last + margin)
    starts = np.flatnonzero(np.append(True, np.diff(values) != 0))
    unique, counts = values[starts], np.diff(starts, append=len(values))
    is_between = np.ones(len(unique), bool)
    is_between[[0, -1, int(np.argmax(counts))]] = False
    between = unique[is_between].astype(np.float64)
    if len(between) > 1 and np.ptp(between) < _MIN_FILLED_BETWEEN * width:
        margin = np.ptp(between)
        return _limits_within(values, between[0] - margin, between[-1] + margin)
    return None


def warn_of_wide_range(
    images: np.ndarray | StoredImages,
    value_range: tuple[float, float],
    suitable: tuple[float, float],
) -> None:
    """Warn that the bulk of the values fills a small part of the value range."""
    low, high = suitable
    n_outside = sum(
        int(np.count_nonzero((part < low) | (part > high))) for part in chunks(images)
    )
    n_values = math.prod(images.shape)
    warn_user(
        f"Most values of X lie between {low:g} and {high:g}, a small part of the value "
        f"range {_shown(value_range)}. Set value_range={_shown(suitable)}; "
        f"{n_outside:,} of {n_values:,} values lie outside of it. Replace them if "
        f"they are outliers or stand for missing data."
    )


def warn_of_values(
    images: np.ndarray | StoredImages,
    value_range: tuple[float, float],
    likelihood: str,
    name: str,
) -> None:
    """Warn if images seem to be in other units, or else if values are clipped."""
    if not _warn_of_other_units(images, value_range, name):
        warn_of_clipping(images, value_range, likelihood)


def warn_of_clipping(
    images: np.ndarray | StoredImages,
    value_range: tuple[float, float],
    likelihood: str,
) -> None:
    """Warn if the likelihood clips values outside of the value range."""
    if likelihood != "bernoulli":
        return
    (low, high), (smallest, largest) = value_range, value_limits(images)
    if smallest < low or largest > high:
        warn_user(
            f"likelihood='bernoulli' is for values within the value range "
            f"{value_range}: values of X outside of it are clipped. Set value_range, "
            f"or use likelihood='gaussian'."
        )


def _warn_of_other_units(
    images: np.ndarray | StoredImages, value_range: tuple[float, float], name: str
) -> bool:
    """Warn if images seem to be in other units than the training data.

    Only the first chunk of out-of-core images is looked at. Returns whether there was
    a warning.
    """
    part = images
    if isinstance(part, StoredImages):
        part = part[: chunk_length(part)]
    if part.size == 0:
        return False
    low, high = value_range
    width = high - low
    smallest, largest = float(part.min()), float(part.max())
    if not math.isfinite(largest - smallest):
        return False  # an error later
    if low - width <= smallest and largest <= high + width:
        is_fraction = (
            part.dtype.kind == "f"
            and width >= _WIDTH_UNSCALED
            and max(-smallest, largest) <= 1.0
        )
        is_narrow = (
            len(part) >= _MANY_IMAGES
            and largest - smallest < _MIN_FILLED_BY_MANY * width
        )
        if smallest == largest or not (is_fraction or is_narrow):
            return False
        if not is_narrow and not (part % 1 != 0).any():
            return False  # zeros and ones
    else:
        is_far = (part < low - width) | (part > high + width)
        if np.count_nonzero(is_far) <= _MAX_OUTSIDE * part.size:
            return False
    warn_user(
        f"{name} has values from {smallest:g} to {largest:g}, but the model was fitted "
        f"with the value range {_shown(value_range)}. Was {name} scaled differently "
        f"(by 255, for instance)? Give it in the units of the training data."
    )
    return True


def _limits_within(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Smallest and largest of sorted values within an interval."""
    within = values[(values >= low) & (values <= high)]
    return float(within[0]), float(within[-1])


def _shown(value_range: tuple[float, float]) -> str:
    return f"({value_range[0]:g}, {value_range[1]:g})"
