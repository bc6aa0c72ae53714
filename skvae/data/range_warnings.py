"""Warnings of value ranges that do not suit the values."""

from __future__ import annotations

import math

import numpy as np

from skvae.data.storage import StoredImages, chunk_length, chunks
from skvae.data.value_range import value_limits
from skvae.exceptions import warn_user

# Part of the values at either end that do not belong to their bulk.
_TAIL = 0.02

# A range is too wide if the bulk of the values fills a smaller part of it, and so do
# nearly all images: a bright object on black in some of them is ordinary.
_MIN_FILLED = 0.1
_FILLED_BY_IMAGE = 0.25
_NEARLY_ALL = 0.95

# Part of the range below which most images suffice. It is one of 256 grey levels.
_ONE_LEVEL = 1 / 256

# Neither the extremes nor the most frequent value, which may stand for missing data,
# but most other values fill a smaller part of the range: many different ones, or few.
_MANY_VALUES = 8
_MIN_FILLED_BETWEEN = 0.02
_MIN_FILLED_BY_FEW = 0.002

# X is in other units if a larger part of its values is outside of the range by more
# than the margin, or far outside: by more than its width. Of images that are mostly
# background, the other values count.
_MARGIN = 0.25
_MAX_OUTSIDE = 0.25
_MAX_FAR = 0.05
_MAX_FAR_IN_FOREGROUND = 0.5
_MIN_FAR = 0.001
_BROKEN_PIXELS = 4

# From this width on a range is none of values that were scaled to [0, 1] or [-1, 1],
# and from this one on none of 8 bits.
_WIDTH_UNSCALED = 10.0
_WIDTH_DEEP = 1023.0

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
    width = value_range[1] - value_range[0]
    values = np.sort(sample, axis=None)
    starts = np.flatnonzero(np.append(True, np.diff(values) != 0))
    unique, counts = values[starts], np.diff(starts, append=len(values))
    if len(unique) == 1:
        return None
    commonest = int(np.argmax(counts))
    return _range_of_bulk(sample, values, unique[commonest], width) or _range_between(
        values, unique, counts, commonest, width
    )


def _range_of_bulk(
    sample: np.ndarray, values: np.ndarray, commonest: float, width: float
) -> tuple[float, float] | None:
    """Range of the commonest value and all others but the outliers, if it is narrow."""
    others = values[values != commonest]
    n_tail = int(_TAIL * len(others))
    first = min(float(others[n_tail]), float(commonest))
    last = max(float(others[len(others) - 1 - n_tail]), float(commonest))
    filled = (last - first) / width
    if filled >= _MIN_FILLED:
        return None
    by_image = np.ptp(sample.reshape(len(sample), -1).astype(np.float64), axis=1)
    part = _NEARLY_ALL if filled >= _ONE_LEVEL else 0.5
    if np.quantile(by_image, part, method="lower") >= _FILLED_BY_IMAGE * width:
        return None
    margin = (last - first) / 2.0
    return _limits_within(values, first - margin, last + margin)


def _range_between(
    values: np.ndarray,
    unique: np.ndarray,
    counts: np.ndarray,
    commonest: int,
    width: float,
) -> tuple[float, float] | None:
    """Range of all but the extremes and the commonest value, if it is narrow."""
    is_between = np.ones(len(unique), bool)
    is_between[[0, -1, commonest]] = False
    between = unique[is_between].astype(np.float64)
    n_others = len(values) - counts[commonest]
    if len(between) < 2 or counts[is_between].sum() < n_others / 2:
        return None
    has_many = len(between) >= _MANY_VALUES
    least = _MIN_FILLED_BETWEEN if has_many else _MIN_FILLED_BY_FEW
    margin = float(np.ptp(between))
    if margin >= least * width:
        return None
    return _limits_within(values, between[0] - margin, between[-1] + margin)


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
        warn_of_clipping(images, value_range, likelihood, name)


def warn_of_clipping(
    images: np.ndarray | StoredImages,
    value_range: tuple[float, float],
    likelihood: str,
    name: str = "X",
) -> None:
    """Warn if the likelihood clips values outside of the value range."""
    if likelihood != "bernoulli":
        return
    (low, high), (smallest, largest) = value_range, value_limits(images)
    if smallest < low or largest > high:
        warn_user(
            f"likelihood='bernoulli' is for values within the value range "
            f"{value_range}: values of {name} outside of it are clipped. Set "
            f"value_range, or use likelihood='gaussian'."
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
    smallest, largest = float(part.min()), float(part.max())
    if not math.isfinite(largest - smallest):
        return False  # an error later
    limits = smallest, largest
    if not _are_outside(part, limits, value_range) and not _are_scaled(
        part, limits, value_range
    ):
        return False
    warn_user(
        f"{name} has values from {smallest:g} to {largest:g}, but the value range is "
        f"{_shown(value_range)}. Was {name} scaled differently (by 255, for instance)? "
        f"Give it in the units of the training data."
    )
    return True


def _are_outside(
    images: np.ndarray, limits: tuple[float, float], value_range: tuple[float, float]
) -> bool:
    """Return whether many values, which have these limits, are outside of the range."""
    (smallest, largest), (low, high) = limits, value_range
    width = high - low
    margin = _MARGIN * width
    if low - margin <= smallest and largest <= high + margin:
        return False  # usual, and counting takes as long as encoding

    def n_beyond(margin: float) -> int:
        is_beyond = (images < low - margin) | (images > high + margin)
        return int(np.count_nonzero(is_beyond))

    n_far = n_beyond(width)
    if n_far > _MAX_FAR * images.size:
        return True
    if n_beyond(margin) > _MAX_OUTSIDE * images.size:
        return True
    if n_far <= max(_BROKEN_PIXELS, _MIN_FAR * images.size):
        return False
    n_foreground = images.size - np.unique(images, return_counts=True)[1].max()
    return bool(n_far > _MAX_FAR_IN_FOREGROUND * n_foreground)


def _are_scaled(
    images: np.ndarray, limits: tuple[float, float], value_range: tuple[float, float]
) -> bool:
    """Return whether all values are those of a smaller unit than the range's."""
    (smallest, largest), (low, high) = limits, value_range
    width = high - low
    if smallest == largest or smallest < low - width or largest > high + width:
        return False
    kind, size = images.dtype.kind, images.dtype.itemsize
    if width >= _WIDTH_UNSCALED and max(-smallest, largest) <= 1.0:
        is_fraction = kind == "f" and bool((images % 1 != 0).any())
        if kind == "b" or is_fraction:
            return True
    if width >= _WIDTH_DEEP and kind == "u" and size == 1:
        return True
    is_narrow = largest - smallest < _MIN_FILLED_BY_MANY * width
    return is_narrow and len(images) >= _MANY_IMAGES


def _limits_within(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Smallest and largest of sorted values within an interval."""
    within = values[(values >= low) & (values <= high)]
    return float(within[0]), float(within[-1])


def _shown(value_range: tuple[float, float]) -> str:
    return f"({value_range[0]:g}, {value_range[1]:g})"
