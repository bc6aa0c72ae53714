"""scikit-learn's callbacks, which it has from version 1.9 on.

`_init_callback_context`, the contexts that it returns and the estimator's list of
callbacks have no public form. They are used in `FitTasks` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stand-in for scikit-learn's before version 1.9."""


__all__ = ["HAS_CALLBACKS", "CallbackSupportMixin", "FitTasks", "fitted_so_far"]

HAS_CALLBACKS = hasattr(CallbackSupportMixin, "set_callbacks")

# Fitted attributes of the innermost fit whose callbacks are called in this thread.
_fitted: ContextVar[Callable[[], dict[str, Any]]] = ContextVar("_fitted")


def fitted_so_far() -> dict[str, Any]:
    """Fitted attributes of the estimator whose callback calls this.

    scikit-learn gives a callback's `fitted_estimator` parameter at each call; this is
    for a callback that does not need it every time.
    """
    return _fitted.get()()


class _NoContext:
    """Context without callbacks."""

    def subcontext(self, **_: Any) -> _NoContext:
        return self

    def call_on_fit_task_begin(self, **_: Any) -> _NoContext:
        return self

    def call_on_fit_task_end(self, **_: Any) -> bool:
        return False


class FitTasks:
    """Tasks that callbacks are called for: a fit, and in it the epochs.

    Parameters
    ----------
    estimator : CallbackSupportMixin
        The estimator that is fitted.
    max_epochs : int
    X, y : array-like
        Arguments of `fit`.
    optional : set of str
        Fitted attributes that not every fit leaves. A `fitted_estimator` is a copy of
        the estimator, in which those of an earlier fit have to be hidden.
    """

    def __init__(
        self,
        estimator: Any,
        max_epochs: int,
        X: Any,
        y: Any,
        optional: frozenset[str],
    ) -> None:
        self._arguments = {"estimator": estimator, "X": X, "y": y}
        self._hidden = optional & set(vars(estimator))
        context: Any = _NoContext()
        # scikit-learn's context is an attribute of the estimator, which fits in several
        # threads would share.
        if getattr(estimator, "_skl_callbacks", None):
            context = estimator._init_callback_context(  # noqa: SLF001
                max_subtasks=max_epochs
            )
        self._fit = context.call_on_fit_task_begin(**self._arguments)

    def begin_epoch(self) -> None:
        """Call the callbacks at the beginning of an epoch."""
        context = self._fit.subcontext(task_name="epoch")
        self._epoch = context.call_on_fit_task_begin(**self._arguments)

    def end_epoch(self, fitted: Callable[[], dict[str, Any]]) -> bool:
        """Call the callbacks at the end of an epoch; return whether to stop.

        The fitted attributes are computed for a callback that needs them.
        """
        return self._end(self._epoch, fitted)

    def end(self, fitted: dict[str, Any]) -> None:
        """Call the callbacks at the end of the fit."""
        self._end(self._fit, lambda: fitted)

    def _end(self, context: Any, fitted: Callable[[], dict[str, Any]]) -> bool:
        token = _fitted.set(fitted)
        try:
            return bool(
                context.call_on_fit_task_end(
                    **self._arguments,
                    reconstruction_attributes=lambda: {
                        **dict.fromkeys(self._hidden),
                        **fitted(),
                    },
                )
            )
        finally:
            _fitted.reset(token)
