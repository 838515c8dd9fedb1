"""The part that the middleware of all frameworks shares: the key of a request, and the answer to it."""

from __future__ import annotations

import ipaddress
import logging
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeAlias

from . import _protocol as protocol
from ._answers import Decision, DistLimiterError
from ._client import AsyncRateLimiter, RateLimiter
from ._protocol import Key

log = logging.getLogger("distlimiter")


@dataclass(frozen=True, slots=True)
class Request:
    """A request of any framework, for key extractors and costs.

    Attributes:
        method: such as ``GET``.
        path: without the query.
        peer: the address that the connection comes from; empty: a Unix socket.
        values: returns the values of a header, in order.
        native: the framework's own: an ASGI scope, or the request of Flask or Django.
    """

    method: str
    path: str
    peer: str
    values: Callable[[str], list[str]]
    native: Any


CostAfter: TypeAlias = Callable[[Request, int, int], int]
"""Returns the hits of a response: of its request, its status and the bytes of its body."""

KeyExtractor: TypeAlias = Callable[[Request], Key | None]
"""Makes the key of a request. Nothing (None, an empty text) means that the request is not limited."""


def header(name: str, default: str = "") -> KeyExtractor:
    """Takes the value of a request header, which any client can choose, or the default."""
    protocol.check_text("name", name, "name a header, such as 'X-User'")

    def extract(request: Request) -> str:
        return next(iter(request.values(name)), "") or default

    return extract


def peer_address(*trusted: str) -> KeyExtractor:
    """Takes the IP address that a request comes from.

    That is the peer's, or behind trusted proxies the last address of X-Forwarded-For that is not one of
    theirs. Others can write what they like into that header. An IPv4 address in IPv6 is written as IPv4.

    Args:
        trusted: addresses of proxies, or networks of them, such as ``10.0.0.0/8``.
    """
    networks = []
    for network in trusted:
        try:
            networks.append(ipaddress.ip_network(network))
        except ValueError as e:
            raise ValueError(f"trusted is {network!r} ({e}): give a network, such as '10.0.0.0/8'") from None

    def extract(request: Request) -> str:
        at = _address(request.peer)
        hops = ",".join(request.values("X-Forwarded-For")).split(",")
        while at is not None and hops and any(at in network for network in networks):
            before = _address(hops.pop().strip())
            if before is None:
                break  # no proxy that is trusted writes that
            at = before
        return "" if at is None else str(at)

    return extract


_PORT = re.compile(r"([0-9.]+):[0-9]+|\[([^]]*)\](?::[0-9]+)?")
_DOTS = re.compile(r"(^|/)\.\.?(/|$)")


def _header_value(value: str) -> str:
    """Writes a value so that its bytes are UTF-8 where frameworks write Latin-1, and end no line."""
    return re.sub(r"[\r\n\0]", " ", value).encode().decode("latin-1")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if port := _PORT.fullmatch(text):  # which some proxies add
        text = port[1] or port[2]
    try:
        at = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(at, "ipv4_mapped", None) or at


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer to a request that does not reach the program."""

    status: int
    headers: dict[str, str]
    body: bytes


def _refusal(status: int, headers: Mapping[str, str], content_type: str, body: bytes) -> Refusal:
    of_body = {"Content-Type": content_type, "Content-Length": str(len(body))}
    others = {name: value for name, value in headers.items() if name.title() not in of_body}
    return Refusal(status, others | of_body, body)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The effect of a decision on a request: headers for its response, or a refusal."""

    headers: dict[str, str]
    refusal: Refusal | None = None
    charge: Callable[[int, int], None] | None = None
    """Charges a response of a status and so many bytes, if there is a ``cost_after``. It never raises."""
    charge_async: Callable[[int, int], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How middleware limits requests.

    Attributes:
        key_extractor: makes the key of a request.
        entry: the key of the entry, instead of the limiter's.
        exempt_paths: are not limited: paths, or starts of paths that end in ``*``.
        exempt_methods: are not limited, such as ``OPTIONS``.
        cost: how many hits a request takes, or a function of the request that says so; None: 1, or 0
            beside ``cost_after``.
        cost_after: a function of the request, the status of its response and the bytes of its body. It
            returns the hits that are charged once the response is known, also beyond what is left if
            the rule has ``denied_hits: count``; None: none.
        status_code: of refusals.
        error_message: the body of refusals; None: that of the rule, or a sentence.
        content_type: of ``error_message``.
        headers: whether responses get RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset, or what
            the service is set to add. Refusals have Retry-After all the same.
    """

    key_extractor: KeyExtractor
    entry: str | None = None
    exempt_paths: tuple[str, ...] = ()
    exempt_methods: tuple[str, ...] = ()
    cost: int | Callable[[Request], int] | None = None
    cost_after: CostAfter | None = None
    status_code: int = 429
    error_message: str | None = None
    content_type: str = "text/plain; charset=utf-8"
    headers: bool = True

    def __post_init__(self) -> None:
        if not callable(self.key_extractor):
            raise TypeError(
                f"key_extractor is {self.key_extractor!r}: give a function, such as"
                " distlimiter.header('X-User') or distlimiter.peer_address()"
            )
        if self.entry is not None:
            protocol.check_text("entry", self.entry, "name the key that the rule has, such as 'user'")
        for name in ("exempt_paths", "exempt_methods"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise TypeError(f"{name} is {value!r}: give a list, such as [{value!r}]")
            object.__setattr__(self, name, tuple(value))
        for path in self.exempt_paths:
            if not path.startswith("/") or "*" in path[:-1]:
                raise ValueError(
                    f"exempt_paths has {path!r}: write a path such as /healthz, or the start of paths"
                    " such as /static/*"
                )
        object.__setattr__(self, "exempt_methods", tuple(m.upper() for m in self.exempt_methods))
        if self.cost_after is not None and not callable(self.cost_after):
            raise TypeError(
                f"cost_after is {self.cost_after!r}: give a function of the request, the status and the bytes"
                " of the body, such as lambda request, status, written: written"
            )
        if self.cost is None:
            object.__setattr__(self, "cost", 0 if self.cost_after else 1)
        elif not callable(self.cost):
            try:
                protocol.check_hits(self.cost, 0)
            except (TypeError, ValueError) as e:
                raise type(e)(f"cost: {e}") from None
        if self.status_code not in range(400, 600):
            raise ValueError(f"status_code is {self.status_code!r}: use an error, such as 429")
        if self.error_message is not None and not isinstance(self.error_message, str):
            raise TypeError(f"error_message is {self.error_message!r}: give a str, of JSON if you like")
        protocol.check_text("content_type", self.content_type, "name one, such as application/json")
        if not isinstance(self.headers, bool):
            raise TypeError(f"headers is {self.headers!r}: use True or False")

    @classmethod
    def of(cls, limiter: RateLimiter | AsyncRateLimiter, options: Mapping[str, Any]) -> Policy:
        """Makes a policy of options, whose key extractor may be the limiter's."""
        check_names(options, (f.name for f in fields(cls)), "{}")
        given = dict(options)
        given.setdefault("key_extractor", limiter.key_extractor)
        if given["key_extractor"] is None:
            raise TypeError(
                "key_extractor is not given: say whom to limit, such as"
                " key_extractor=distlimiter.peer_address() or distlimiter.header('X-User')"
            )
        return cls(**given)

    def but(self, options: Mapping[str, Any]) -> Policy:
        """Returns the policy with other options."""
        if "cost_after" in options:
            options = {"cost": None, **options}  # the cost that goes with it
        return replace(self, **options)

    def asks(self, request: Request) -> tuple[Key, int] | None:
        """Returns the key and the hits of a request; None if it is not limited."""
        if request.method in self.exempt_methods:
            return None
        # What /static/../api leads to is up to the program, so no start of it makes it exempt.
        plain = not _DOTS.search(request.path)
        for path in self.exempt_paths:
            if request.path == path or (plain and path.endswith("*") and request.path.startswith(path[:-1])):
                return None
        key = self.key_extractor(request)
        if not key:
            return None
        if not isinstance(key, str | Mapping):
            key = tuple(key)
        if not isinstance(key, str):
            values = key.values() if isinstance(key, Mapping) else [value for _, value in key]
            if not all(values):
                return None
        elif self.entry is not None:
            key = {self.entry: key}
        return key, self.cost(request) if callable(self.cost) else self.cost or 0

    def hits_after(self, request: Request, status: int, written: int) -> int:
        """Returns the hits of a response. A cost_after that fails is logged: the answer stands."""
        assert self.cost_after is not None
        try:
            hits = self.cost_after(request, status, written)
            return min(protocol.check_hits(hits, 0, 2**64 - 1), protocol.MOST_HITS)
        except Exception:
            log.exception("cost_after of %s %s failed, and nothing is charged", request.method, request.path)
            return 0

    def outcome(self, decision: Decision) -> Outcome:
        """Returns the effect of a decision on a request."""
        if not decision.allowed and decision.error:
            return self.failed(decision.error)
        headers = self._headers(decision) if self.headers else {}
        if decision.allowed:
            return Outcome(headers)
        if decision.retry_after > 0 and not any(name.lower() == "retry-after" for name in headers):
            headers["Retry-After"] = str(math.ceil(decision.retry_after))
        if self.error_message is not None:
            body, content_type = self.error_message.encode(), self.content_type
        else:
            named = {name.lower(): value for name, value in decision.headers}
            body = decision.body or b"too many requests\n"
            content_type = named.get("content-type", "text/plain; charset=utf-8")
        return Outcome({}, _refusal(self.status_code, headers, content_type, body))

    def failed(self, error: DistLimiterError) -> Outcome:
        """Returns the effect on a request about which there is no decision."""
        log.error("a request is refused, as there is no decision: %s", error)
        body = b"the rate limit can't be checked\n"
        return Outcome({}, _refusal(503, {}, "text/plain; charset=utf-8", body))

    @staticmethod
    def _headers(decision: Decision) -> dict[str, str]:
        if decision.headers:
            return {name: _header_value(value) for name, value in decision.headers}
        if decision.limit is None:
            return {}
        return {
            "RateLimit-Limit": str(decision.limit.requests),
            "RateLimit-Remaining": str(decision.remaining),
            "RateLimit-Reset": str(math.ceil(max(decision.reset_after, decision.retry_after))),
        }


class Counted:
    """A body that counts its bytes, and reports them once, when it is closed."""

    def __init__(
        self, parts: Iterable[bytes], report: Callable[[int], None], close: Callable[[], object] | None = None
    ) -> None:
        self._parts = parts
        self._report: Callable[[int], None] | None = report
        self._close = close
        self._written = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            self._written += len(part)
            yield part

    def close(self) -> None:
        report, self._report = self._report, None
        try:
            if self._close:
                self._close()
        finally:
            if report:
                report(self._written)


def ask(limiter: RateLimiter, policy: Policy, request: Request) -> Outcome | None:
    """Asks about a request; None if it is not limited."""
    asked = policy.asks(request)
    if asked is None:
        return None
    try:
        outcome = policy.outcome(limiter.allow(*asked))
    except DistLimiterError as e:
        return policy.failed(e)
    if policy.cost_after is None or outcome.refusal:
        return outcome

    def charge(status: int, written: int) -> None:
        if hits := policy.hits_after(request, status, written):
            limiter._charge(asked[0], hits)

    return replace(outcome, charge=charge)


async def ask_async(limiter: AsyncRateLimiter, policy: Policy, request: Request) -> Outcome | None:
    """Is ``ask`` for asyncio. The outcome has ``charge_async``."""
    asked = policy.asks(request)
    if asked is None:
        return None
    try:
        outcome = policy.outcome(await limiter.allow(*asked))
    except DistLimiterError as e:
        return policy.failed(e)
    if policy.cost_after is None or outcome.refusal:
        return outcome

    async def charge(status: int, written: int) -> None:
        if hits := policy.hits_after(request, status, written):
            await limiter._charge(asked[0], hits)

    return replace(outcome, charge_async=charge)


def check_names(given: Iterable[str], known: Iterable[str], spelled: str) -> None:
    """Raises TypeError for an option that there is not."""
    known = list(known)
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            remedy = f"did you mean {spelled.format(near[0])}?" if near else f"use one of {', '.join(known)}"
            raise TypeError(f"there is no option {spelled.format(name)}: {remedy}")


# Settings of Flask and Django, without their prefix.
PREFIX = "RATE_LIMITER_"
_OF_LIMITER = ("url", "domain", "entry", "timeout", "on_error", "admin_url", "admin_token", "tls")
_OF_POLICY = tuple(f.name for f in fields(Policy) if f.name != "entry")


def from_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads RATE_LIMITER_… into arguments of a limiter and options of a policy.

    Raises:
        ValueError: which setting is missing, unknown or wrong.
    """
    given = {k.removeprefix(PREFIX).lower(): v for k, v in settings.items() if k.startswith(PREFIX)}
    spelled = {name: PREFIX + name.upper() for name in (*_OF_LIMITER, *_OF_POLICY)}
    try:
        check_names((PREFIX + name.upper() for name in given), spelled.values(), "{}")
        for name, example in (("url", "'http://localhost:8080'"), ("domain", "'edge'"), ("entry", "'user'")):
            if name not in given:
                raise ValueError(f"{spelled[name]} is not set: set it, such as to {example}")
        if "key_extractor" not in given:
            raise ValueError(
                f"{spelled['key_extractor']} is not set: say whom to limit, such as by"
                " distlimiter.peer_address() or distlimiter.header('X-User')"
            )
        for name in ("key_extractor", "cost_after"):
            if isinstance(given.get(name), str):
                given[name] = _imported(name, given[name])
        limiter = {name: value for name, value in given.items() if name in _OF_LIMITER}
        policy = {name: value for name, value in given.items() if name in _OF_POLICY}
        Policy.of(RateLimiter(**limiter), policy)
    except (TypeError, ValueError) as e:
        # A message begins with the name of the argument.
        name = re.split("[ :]", str(e), maxsplit=1)[0]
        raise ValueError(spelled.get(name, name) + str(e)[len(name) :]) from e
    return limiter, policy


def _imported(setting: str, path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise ValueError(f"{setting} is {path!r} ({e}): name a function, such as 'mysite.limits.user'") from e
