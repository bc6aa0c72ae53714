"""scikit-learn's callbacks, which it has from version 1.9 on, and their absence before.

`_init_callback_context` and what it returns have no public form; they are used in
`FitTasks` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skvae.training import Outcome

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class _NoContext:
        """Nobody is told of a task."""

        def subcontext(self, **_: Any) -> _NoContext:
            return self

        def call_on_fit_task_begin(self, **_: Any) -> _NoContext:
            return self

        def call_on_fit_task_end(self, **_: Any) -> bool:
            return False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """What an estimator does about callbacks without scikit-learn 1.9."""

        def _init_callback_context(self, **_: Any) -> _NoContext:
            return _NoContext()


__all__ = ["HAS_CALLBACKS", "CallbackSupportMixin", "FitTasks", "fitted_so_far"]

HAS_CALLBACKS = hasattr(CallbackSupportMixin, "set_callbacks")

# What the fit has come to whose callbacks are called: each thread's own, and the
# innermost, if a callback fits.
_under_way: ContextVar[Callable[[], dict[str, Any]]] = ContextVar("_under_way")


def fitted_so_far() -> dict[str, Any]:
    """Fitted attributes of the estimator whose callback asks, at the end of a task.

    scikit-learn works out the `fitted_estimator` that a callback has as a parameter for
    each call; this is for one that does not always need it.
    """
    return _under_way.get()()


class FitTasks:
    """The tasks that callbacks are told of: a fit, and in it one an epoch.

    Parameters
    ----------
    estimator : CallbackSupportMixin
        The estimator that is fitted.
    max_epochs : int
    X, y : array-like
        What `fit` was given.
    describe : callable
        Gives the fitted attributes that an outcome of training stands for.
    optional : set of str
        Those that not every fit gives. A `fitted_estimator` is a copy of the estimator,
        in which those that an earlier fit left have to be hidden.
    """

    def __init__(
        self,
        estimator: Any,
        max_epochs: int,
        X: Any,
        y: Any,
        describe: Callable[[Outcome], dict[str, Any]],
        optional: frozenset[str],
    ) -> None:
        self._shown = {"estimator": estimator, "X": X, "y": y}
        self._describe = describe
        self._optional = optional
        context = estimator._init_callback_context(  # noqa: SLF001
            max_subtasks=max_epochs
        )
        self._fit = context.call_on_fit_task_begin(**self._shown)

    def begin_epoch(self) -> None:
        """Say that an epoch begins."""
        context = self._fit.subcontext(task_name="epoch")
        self._epoch = context.call_on_fit_task_begin(**self._shown)

    def end_epoch(self, outcome: Callable[[], Outcome]) -> bool:
        """Say that the epoch has ended; whether a callback wants training to end.

        What training has come to is worked out only for a callback that asks for it.
        """
        return self._end(self._epoch, lambda: self._describe(outcome()))

    def end(self, fitted: dict[str, Any]) -> None:
        """Say that the fit has ended."""
        self._end(self._fit, lambda: fitted)

    def _end(self, context: Any, fitted: Callable[[], dict[str, Any]]) -> bool:
        estimator = self._shown["estimator"]
        token = _under_way.set(fitted)

        def hiding_earlier() -> dict[str, Any]:
            attributes = fitted()
            hidden = set(vars(estimator)) & self._optional
            return {**dict.fromkeys(hidden), **attributes}

        try:
            return bool(
                context.call_on_fit_task_end(
                    **self._shown, reconstruction_attributes=hiding_earlier
                )
            )
        finally:
            _under_way.reset(token)
