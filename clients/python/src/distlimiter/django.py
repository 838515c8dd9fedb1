"""Middleware and a decorator for Django, under WSGI and ASGI.

Settings: ``RATE_LIMITER_URL``, ``_DOMAIN``, ``_ENTRY`` and ``_KEY_EXTRACTOR`` are required; ``_TIMEOUT``,
``_ON_ERROR``, ``_TLS``, ``_ADMIN_URL``, ``_ADMIN_TOKEN``, ``_EXEMPT_PATHS``, ``_EXEMPT_METHODS``, ``_COST``,
``_STATUS_CODE``, ``_ERROR_MESSAGE``, ``_CONTENT_TYPE`` and ``_HEADERS`` are not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from functools import cache, wraps
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from ._client import AsyncRateLimiter, RateLimiter
from ._web import PREFIX, Outcome, Policy, Request, ask, ask_async, check_names, from_settings


@dataclass(frozen=True)
class _Configured:
    limiter: RateLimiter
    async_limiter: AsyncRateLimiter
    policy: Policy


@cache
def _configured() -> _Configured:
    given = {name: getattr(settings, name) for name in dir(settings) if name.startswith(PREFIX)}
    try:
        of_limiter, options = from_settings(given)
    except ValueError as e:
        raise ImproperlyConfigured(str(e)) from e
    limiter = RateLimiter(**of_limiter)
    return _Configured(limiter, AsyncRateLimiter(**of_limiter), Policy.of(limiter, options))


def limiter() -> RateLimiter:
    """Returns the limiter of the settings, for ``allow``, ``hold``, ``reset`` and so on."""
    return _configured().limiter


def async_limiter() -> AsyncRateLimiter:
    """Returns the limiter of the settings for asynchronous views."""
    return _configured().async_limiter


def _changed(*, setting: str, **_: Any) -> None:
    if setting.startswith(PREFIX):
        _configured.cache_clear()  # override_settings, in tests


setting_changed.connect(_changed)


class RateLimitMiddleware:
    """Limits each request. Put ``distlimiter.django.RateLimitMiddleware`` into ``MIDDLEWARE``.

    A key extractor that reads ``request.native.user`` needs it behind AuthenticationMiddleware.

    Raises:
        ImproperlyConfigured: at the start: which setting is wrong, and the remedy.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)
        _configured()

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._async:
            return _limited_async(request, {}, lambda: self._get_response(request))
        return _limited(request, {}, lambda: self._get_response(request))


def rate_limit(view: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Limits a view, in addition to what the middleware limits.

    ``@rate_limit(entry="path", key_extractor=..., cost=5)`` or ``@rate_limit``. Options that are not given
    are those of the settings. Of a class: ``@method_decorator(rate_limit(...), name="dispatch")``.
    """
    if view is not None and not callable(view):
        raise TypeError(f"rate_limit takes its options by name, such as cost=5, and was given {view!r}")
    check_names(options, (f.name for f in fields(Policy)), "{}")

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        if iscoroutinefunction(view):

            @wraps(view)
            async def limited_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                return await _limited_async(request, options, lambda: view(request, *args, **kwargs))

            return limited_async

        @wraps(view)
        def limited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return _limited(request, options, lambda: view(request, *args, **kwargs))

        return limited

    return decorate if view is None else decorate(view)


def _limited(
    request: HttpRequest, options: dict[str, Any], proceed: Callable[[], HttpResponseBase]
) -> HttpResponseBase:
    c = _configured()
    outcome = ask(c.limiter, c.policy.but(options), _request(request))
    return _refusal(outcome) or _with_headers(outcome, proceed())


async def _limited_async(
    request: HttpRequest, options: dict[str, Any], proceed: Callable[[], Awaitable[HttpResponseBase]]
) -> HttpResponseBase:
    c = _configured()
    outcome = await ask_async(c.async_limiter, c.policy.but(options), _request(request))
    return _refusal(outcome) or _with_headers(outcome, await proceed())


def _refusal(outcome: Outcome | None) -> HttpResponseBase | None:
    if outcome is None or outcome.refusal is None:
        return None
    refusal = outcome.refusal
    return HttpResponse(refusal.body, status=refusal.status, headers=refusal.headers)


def _with_headers(outcome: Outcome | None, response: HttpResponseBase) -> HttpResponseBase:
    for name, value in outcome.headers.items() if outcome else ():
        response.headers.setdefault(name, value)
    return response


def _request(request: HttpRequest) -> Request:
    if not isinstance(request, HttpRequest):
        raise TypeError(
            f"rate_limit was given a {type(request).__name__} for a request: decorate a class with"
            " @method_decorator(rate_limit(...), name='dispatch')"
        )

    def values(name: str) -> list[str]:
        value = request.headers.get(name)
        return [] if value is None else [value]

    return Request(request.method or "", request.path, request.META.get("REMOTE_ADDR", ""), values, request)
