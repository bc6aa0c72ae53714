"""What displays need: matplotlib and a fitted ConvVAE."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted

from skvae.estimator import ConvVAE


def check_matplotlib(display: str) -> None:
    """See that matplotlib is there.

    Raises
    ------
    ImportError
        If it is not.
    """
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415  an extra
    except ImportError as error:
        msg = f"{display} needs matplotlib: pip install matplotlib"
        raise ImportError(msg) from error


def check_estimator(display: str, estimator: Any) -> None:
    """See that a display can be made, before anything is worked out for it.

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError
        If the estimator is no ConvVAE.
    NotFittedError
        If it is not fitted.
    """
    check_matplotlib(display)
    if not isinstance(estimator, ConvVAE):
        msg = (
            f"{display} is for a ConvVAE, got {type(estimator).__name__}. Of a "
            f"pipeline, give the step itself, and X as it comes to that step."
        )
        raise TypeError(msg)
    check_is_fitted(estimator)
