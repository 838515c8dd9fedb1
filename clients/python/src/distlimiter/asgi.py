"""Middleware for ASGI: FastAPI, Starlette and other frameworks, on asyncio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ._client import AsyncRateLimiter
from ._web import Policy, Refusal, Request, ask_async

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class RateLimitMiddleware:
    """Limits the requests and WebSockets of an ASGI application.

    ``app.add_middleware(RateLimitMiddleware, limiter=limiter, key_extractor=header("X-User"))``

    Args:
        app: the application.
        limiter: an AsyncRateLimiter.
        options: ``key_extractor`` (that of the limiter unless given), ``entry``, ``exempt_paths``,
            ``exempt_methods``, ``cost``, ``cost_after``, ``status_code``, ``error_message``,
            ``content_type`` and ``headers``.

    Raises:
        TypeError, ValueError: which option is wrong, and the remedy.
    """

    def __init__(self, app: App, limiter: AsyncRateLimiter, **options: Any) -> None:
        if not isinstance(limiter, AsyncRateLimiter):
            raise TypeError(
                f"limiter is a {type(limiter).__name__}, which would block the event loop:"
                " give an AsyncRateLimiter"
            )
        self._app = app
        self._limiter = limiter
        self._policy = Policy.of(limiter, options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        outcome = await ask_async(self._limiter, self._policy, _request(scope))
        if outcome is None:
            await self._app(scope, receive, send)
        elif outcome.refusal:
            await _refuse(outcome.refusal, scope, receive, send)
        elif outcome.charge_async is None:
            await self._app(scope, receive, _with_headers(outcome.headers, send))
        else:
            head = scope.get("method") == "HEAD"  # whose body the server leaves out
            response = _Counted(_with_headers(outcome.headers, send), outcome.charge_async, head)
            try:
                await self._app(scope, receive, response.send)
            finally:
                await response.end()


def _request(scope: Scope) -> Request:
    def values(name: str) -> list[str]:
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == wanted]

    client = scope.get("client")
    return Request(scope.get("method", "GET"), scope["path"], client[0] if client else "", values, scope)


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def _with_headers(headers: dict[str, str], send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
            own = list(message.get("headers") or ())
            names = {name.lower() for name, _ in own}
            added = [header for header in _encoded(headers) if header[0] not in names]
            message = {**message, "headers": own + added}
        await send(message)

    return sending


class _Counted:
    """Takes note of a response, and charges it once: when all of it was sent, or the application ends."""

    def __init__(self, send: Send, charge: Callable[[int, int], Awaitable[None]], head: bool) -> None:
        self._send = send
        self._head = head
        self._charge: Callable[[int, int], Awaitable[None]] | None = charge
        self._status = 500  # of an application that fails before it answers
        self._declared = self._written = 0

    async def send(self, message: Message) -> None:
        await self._send(message)
        kind = message["type"].removeprefix("websocket.")
        if kind == "http.response.start":
            self._status = message["status"]
            lengths = [v for name, v in message.get("headers") or () if name.lower() == b"content-length"]
            self._declared = int(lengths[0]) if lengths and lengths[0].isdigit() else 0
        elif kind == "http.response.body":
            self._written += len(message.get("body", b""))
            if not message.get("more_body", False):
                await self.end()  # what runs in the background afterwards is no part of it
        elif kind in ("http.response.pathsend", "http.response.zerocopysend"):
            self._written = self._declared
        elif kind == "accept":
            self._status = 101
        elif kind == "send":
            text = message.get("text")
            self._written += len(text.encode() if text is not None else message.get("bytes") or b"")

    async def end(self) -> None:
        charge, self._charge = self._charge, None
        if charge:
            await charge(self._status, 0 if self._head else self._written)


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    prefix = ""
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1013, "reason": "too many requests"})
            return
        prefix = "websocket."
    headers = _encoded(refusal.headers)
    await send({"type": prefix + "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": prefix + "http.response.body", "body": refusal.body})
