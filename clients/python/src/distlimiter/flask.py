"""An extension for Flask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, TypeVar

import flask

from ._client import RateLimiter
from ._web import Counted, Policy, Request, ask, check_names, from_settings

View = TypeVar("View", bound=Callable[..., Any])

_NAME = "distlimiter"


@dataclass(frozen=True)
class _State:
    limiter: RateLimiter
    policy: Policy


class RateLimit:
    """Limits the requests of a Flask application.

    ``RateLimit(app)`` or, with an application factory, ``init_app(app)``. Without a limiter it is made of
    the settings ``RATE_LIMITER_URL``, ``RATE_LIMITER_DOMAIN``, ``RATE_LIMITER_ENTRY`` and so on in
    ``app.config``.

    Args:
        app: the application, or None before ``init_app``.
        limiter: a RateLimiter; None: from the settings.
        every_request: whether each request is limited; False: only views with ``limit``.
        options: with a limiter, those of ``distlimiter.asgi.RateLimitMiddleware``.

    Raises:
        TypeError, ValueError: which option or setting is wrong, and the remedy.
    """

    def __init__(
        self,
        app: flask.Flask | None = None,
        limiter: RateLimiter | None = None,
        *,
        every_request: bool = True,
        **options: Any,
    ) -> None:
        if limiter is not None and not isinstance(limiter, RateLimiter):
            raise TypeError(f"limiter is a {type(limiter).__name__}: give a RateLimiter")
        if limiter is None and options:
            raise TypeError(
                f"{', '.join(options)} given without a limiter: give one, or use settings such as"
                f" RATE_LIMITER_{next(iter(options)).upper()}"
            )
        self._state = _State(limiter, Policy.of(limiter, options)) if limiter else None
        self._every_request = every_request
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Limits the requests of an application."""
        state = self._state
        if state is None:
            of_limiter, options = from_settings(app.config)
            limiter = RateLimiter(**of_limiter)
            state = _State(limiter, Policy.of(limiter, options))
        app.extensions[_NAME] = state
        if self._every_request:
            app.before_request(lambda: _refused(state, state.policy))


def limit(view: View | None = None, /, **options: Any) -> Any:
    """Limits a view, in addition to what ``RateLimit`` limits.

    ``@limit(entry="path", key_extractor=..., cost=5)`` or ``@limit``. Options that are not given are
    those of the application.
    """
    if view is not None and not callable(view):
        raise TypeError(f"limit takes its options by name, such as cost=5, and was given {view!r}")
    check_names(options, (f.name for f in fields(Policy)), "{}")

    def decorate(view: View) -> View:
        @wraps(view)
        def limited(*args: Any, **kwargs: Any) -> Any:
            state = flask.current_app.extensions.get(_NAME)
            if state is None:
                raise RuntimeError("limit needs the extension: call distlimiter.flask.RateLimit(app)")
            refused = _refused(state, state.policy.but(options) if options else state.policy)
            return refused or flask.current_app.ensure_sync(view)(*args, **kwargs)

        return limited  # type: ignore[return-value]

    return decorate if view is None else decorate(view)


def _refused(state: _State, policy: Policy) -> flask.Response | None:
    """Asks about the current request, and returns the response if it is refused."""
    outcome = ask(state.limiter, policy, _request(flask.request))
    if outcome is None:
        return None
    if outcome.refusal:
        refusal = outcome.refusal
        return flask.Response(refusal.body, refusal.status, refusal.headers)
    _add_headers(outcome.headers)
    if outcome.charge:
        _charge_after(outcome.charge)
    return None


def _add_headers(headers: Mapping[str, str]) -> None:
    """Adds headers to the response. Those of a view's own limit take the place of the application's."""
    added: dict[str, str] | None = flask.g.get("_distlimiter_headers")
    if added is None:
        added = flask.g._distlimiter_headers = {}

        @flask.after_this_request
        def add(response: flask.Response) -> flask.Response:
            for name, value in added.items():
                response.headers.setdefault(name, value)
            return response

    added.update(headers)


def _charge_after(charge: Callable[[int, int], None]) -> None:
    """Charges the response when it has been sent."""
    head = flask.request.method == "HEAD"

    @flask.after_this_request
    def count(response: flask.Response) -> flask.Response:
        if head or response.is_sequence:
            length = 0 if head else sum(map(len, response.iter_encoded()))
            response.call_on_close(lambda: charge(response.status_code, length))
        else:
            close = getattr(response.response, "close", None)
            response.response = Counted(
                response.iter_encoded(), lambda n: charge(response.status_code, n), close
            )
        return response


def _request(request: flask.Request) -> Request:
    return Request(request.method, request.path, request.remote_addr or "", request.headers.getlist, request)
