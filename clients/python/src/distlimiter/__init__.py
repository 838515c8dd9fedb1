"""Asks a rate-limit service for decisions, for programs that have no Envoy in front of them.

``RateLimiter`` waits for an answer, ``AsyncRateLimiter`` is for asyncio. Web servers take the middleware
in ``distlimiter.asgi`` (FastAPI, Starlette), ``distlimiter.flask`` or ``distlimiter.django``. Which limit
applies, by which algorithm, is written in the rules of the service: callers name a domain and the entries
of one descriptor.
"""

from ._answers import (
    AdminError,
    Counter,
    Decision,
    DistLimiterError,
    Limit,
    OverLimitError,
    RequestError,
    ServiceError,
)
from ._client import AsyncRateLimiter, Cost, Hold, RateLimiter
from ._protocol import Key
from ._web import CostAfter, KeyExtractor, Request, header, peer_address

__all__ = [
    "AdminError",
    "AsyncRateLimiter",
    "Cost",
    "CostAfter",
    "Counter",
    "Decision",
    "DistLimiterError",
    "Hold",
    "Key",
    "KeyExtractor",
    "Limit",
    "OverLimitError",
    "RateLimiter",
    "Request",
    "RequestError",
    "ServiceError",
    "header",
    "peer_address",
]
