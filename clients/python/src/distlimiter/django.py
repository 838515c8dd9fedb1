"""Middleware and a decorator for Django, under WSGI and ASGI.

Settings: ``RATE_LIMITER_URL``, ``_DOMAIN``, ``_ENTRY`` and ``_KEY_EXTRACTOR`` are required; ``_TIMEOUT``,
``_ON_ERROR``, ``_TLS``, ``_ADMIN_URL``, ``_ADMIN_TOKEN``, ``_EXEMPT_PATHS``, ``_EXEMPT_METHODS``, ``_COST``,
``_COST_AFTER``, ``_STATUS_CODE``, ``_ERROR_MESSAGE``, ``_CONTENT_TYPE`` and ``_HEADERS`` are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, fields
from functools import cache, partial, wraps
from inspect import isawaitable
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import BadRequest, ImproperlyConfigured, PermissionDenied, SuspiciousOperation
from django.core.signals import setting_changed
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from ._client import AsyncRateLimiter, RateLimiter
from ._web import (
    PREFIX,
    Counted,
    Outcome,
    Policy,
    Refusal,
    Request,
    ask,
    ask_async,
    check_names,
    from_settings,
)


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
            if _in_a_loop():  # the dispatch of a class with asynchronous methods
                return _limited_async(request, options, lambda: view(request, *args, **kwargs))
            return _limited(request, options, lambda: view(request, *args, **kwargs))

        return limited

    return decorate if view is None else decorate(view)


def _limited(
    request: HttpRequest, options: dict[str, Any], proceed: Callable[[], HttpResponseBase]
) -> HttpResponseBase:
    c = _configured()
    outcome = ask(c.limiter, c.policy.but(options), _request(request))
    if outcome is None:
        return proceed()
    if outcome.refusal:
        return _refused(outcome.refusal)
    charge = outcome.charge
    if charge is None:
        return _with_headers(outcome, proceed())
    try:
        response = proceed()
    except BaseException as e:
        charge(_status_of(e), 0)
        raise
    if not _charged_later(request, response, charge, sync_to_async(charge)):
        charge(response.status_code, _length(request, response))
    return _with_headers(outcome, response)


async def _limited_async(request: HttpRequest, options: dict[str, Any], proceed: Callable[[], Any]) -> Any:
    c = _configured()
    outcome = await ask_async(c.async_limiter, c.policy.but(options), _request(request))
    if outcome and outcome.refusal:
        return _refused(outcome.refusal)
    charge = outcome and outcome.charge_async
    try:
        response = proceed()
        if isawaitable(response):
            response = await response
    except BaseException as e:
        if charge:
            await charge(_status_of(e), 0)
        raise
    if charge and not _charged_later(request, response, async_to_sync(charge), charge):
        await charge(response.status_code, _length(request, response))
    return _with_headers(outcome, response) if outcome else response


def _charged_later(
    request: HttpRequest,
    response: Any,
    in_thread: Callable[[int, int], None],
    in_loop: Callable[[int, int], Awaitable[None]],
) -> bool:
    """Charges a response when its body is known, and reports whether it is not known yet."""
    if response.streaming and response.is_async:
        response.streaming_content = _counted(response.streaming_content, response.status_code, in_loop)
    elif response.streaming:  # Django closes it in a thread
        report = partial(in_thread, response.status_code)
        response.streaming_content = Counted(response.streaming_content, report)
    elif not getattr(response, "is_rendered", True):  # Django renders it in a thread
        response.add_post_render_callback(lambda r: in_thread(r.status_code, _length(request, r)))
    else:
        return False
    return True


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _length(request: HttpRequest, response: Any) -> int:
    return 0 if request.method == "HEAD" else len(response.content)


def _status_of(e: BaseException) -> int:
    """Returns the status that Django answers with when a view raises."""
    for kind, status in ((Http404, 404), (PermissionDenied, 403), ((SuspiciousOperation, BadRequest), 400)):
        if isinstance(e, kind):
            return status
    return 500


async def _counted(
    parts: AsyncIterator[bytes], status: int, charge: Callable[[int, int], Awaitable[None]]
) -> AsyncIterator[bytes]:
    written = 0
    try:
        async for part in parts:
            written += len(part)
            yield part
    finally:
        await charge(status, written)


def _refused(refusal: Refusal) -> HttpResponseBase:
    return HttpResponse(refusal.body, status=refusal.status, headers=refusal.headers)


def _with_headers(outcome: Outcome, response: HttpResponseBase) -> HttpResponseBase:
    for name, value in outcome.headers.items():
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
