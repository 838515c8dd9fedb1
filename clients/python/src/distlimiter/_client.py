"""The clients: one that waits, and one for asyncio."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar

import anyio
import httpx

from . import _protocol as protocol
from ._answers import (
    AdminError,
    Counter,
    Decision,
    DistLimiterError,
    OverLimitError,
    RequestError,
    ServiceError,
)
from ._protocol import Entries, Key, OnError

log = logging.getLogger("distlimiter")

# The service keeps idle connections for two minutes. A shorter time here means that this side ends
# them, so that no request meets a connection that is just being closed.
_CONNECTIONS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=60)

# An administrator waits longer than a request does.
_ADMIN_TIMEOUT = 5.0

T = TypeVar("T", httpx.Client, httpx.AsyncClient)


class _Deadline(Mapping[str, float]):
    """Timeouts of the phases of one request, so that together they take no longer than one."""

    _phases = ("connect", "read", "write", "pool")

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def __getitem__(self, phase: str) -> float:
        if phase not in self._phases:
            raise KeyError(phase)
        return max(self._end - time.monotonic(), 0.001)

    def __iter__(self) -> Iterator[str]:
        return iter(self._phases)

    def __len__(self) -> int:
        return len(self._phases)


class _Pools(Generic[T]):
    """One pool of connections for each process and, of asyncio, each event loop.

    A forked process must not write into the connections of its parent, and connections of asyncio
    belong to their loop.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] = make
        self._pid = os.getpid()
        self._pools: dict[asyncio.AbstractEventLoop | None, T] = {}

    def get(self, loop: asyncio.AbstractEventLoop | None) -> T:
        if self._pid != os.getpid():
            self._pools, self._pid = {}, os.getpid()
        pool = self._pools.get(loop)
        if pool is None:
            for ended in [at for at in self._pools if at is not None and at.is_closed()]:
                self._pools.pop(ended, None)
            # Of threads that come here at once all take the same.
            pool = self._pools.setdefault(loop, self._make())
        return pool

    def pop(self, loop: asyncio.AbstractEventLoop | None) -> T | None:
        return self._pools.pop(loop, None) if self._pid == os.getpid() else None


class _Limiter(Generic[T]):
    """The part that both clients share: all but input and output."""

    _pools: _Pools[T]

    def __init__(
        self,
        url: str,
        domain: str,
        entry: str,
        *,
        key_extractor: Callable[..., Key | None] | None = None,
        timeout: float = 0.25,
        on_error: OnError = "raise",
        admin_url: str | None = None,
        admin_token: str | None = None,
        tls: ssl.SSLContext | None = None,
        hold_by: str = "request_id",
        settled_by: tuple[str, str] = ("phase", "done"),
    ) -> None:
        """
        Args:
            url: the service's HTTP address (``--http-addr``), such as ``http://localhost:8080``.
            domain: that of the rules, such as ``edge``.
            entry: the key of the entry whose value ``allow`` and the others take, such as ``user``.
            key_extractor: what makes the key of a request, for middleware that is given none of its
                own: ``header(...)``, ``peer_address(...)`` or a function of a ``Request``.
            timeout: the most seconds that a call takes, also while the service is away. Name
                resolution is not part of it in ``RateLimiter``: use an address that needs none, or a
                resolver that is quick, where that matters.
            on_error: what to do when the service does not decide: ``raise`` ServiceError, ``allow`` or
                ``deny``, with the error in ``Decision.error``.
            admin_url: the admin address, such as ``http://localhost:6070``, for ``get_stats`` and
                ``reset``.
            admin_token: the text of the service's ``--admin-token-file``.
            tls: for https: authorities and a client's certificate; None: those of the system.
            hold_by: the entry that names a request: ``by`` in the rule's ``hold``.
            settled_by: the entry of a request that has ended: ``settled_by`` in the rule's ``hold``.

        Raises:
            ValueError, TypeError: which argument is wrong, and the remedy.
        """
        self.url = protocol.check_url("url", url, "http://localhost:8080")
        self.domain = protocol.check_text("domain", domain, "name one that the service has rules for")
        self.entry = protocol.check_text("entry", entry, "name the key that the rule has, such as 'user'")
        if key_extractor is not None and not callable(key_extractor):
            raise TypeError(
                f"key_extractor is {key_extractor!r}: give a function, such as distlimiter.header('X-User')"
            )
        self.key_extractor = key_extractor
        self.timeout = protocol.check_timeout(timeout)
        self.on_error = protocol.check_on_error(on_error)
        self._admin_url = admin_url and protocol.check_url("admin_url", admin_url, "http://localhost:6070")
        if admin_token is not None:
            admin_token = protocol.check_text(
                "admin_token", admin_token, "give the text of --admin-token-file, or leave it out"
            ).strip()
            if not self._admin_url:
                raise ValueError("admin_token is given without admin_url: give both, or leave it out")
        self._admin_token = admin_token
        if tls is not None and not isinstance(tls, ssl.SSLContext):
            raise TypeError(f"tls is {tls!r}: give an ssl.SSLContext, such as ssl.create_default_context()")
        self._hold_by = protocol.check_text("hold_by", hold_by, "name the key that 'by' of the hold names")
        self._settled_by = settled_by
        if not isinstance(settled_by, tuple) or len(settled_by) != 2:
            raise TypeError(
                f"settled_by is {settled_by!r}: give a key and its value, such as ('phase', 'done')"
            )
        protocol.entries_of(entry, [settled_by])
        self._answering = True

        # Made once, as loading the authorities takes long.
        https = any(u and u.startswith("https:") for u in (self.url, self._admin_url))
        self._verify: ssl.SSLContext | bool = tls or (ssl.create_default_context() if https else False)
        self._pools = _Pools[T](self._make)

    def _make(self) -> T:
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        # The service is a part of this program: HTTP_PROXY is not for it.
        return {"limits": _CONNECTIONS, "trust_env": False, "verify": self._verify}

    # Deciding.

    def _decided(self, response: httpx.Response) -> Decision:
        """Reads an answer. Raises ServiceError or RequestError."""
        if response.status_code == httpx.codes.BAD_REQUEST:
            raise RequestError(f"the service at {self.url} refuses the request: {response.text.strip()}")
        if response.status_code in (httpx.codes.OK, httpx.codes.TOO_MANY_REQUESTS):
            try:
                decision = protocol.decision(response.content)
            except ValueError as e:
                raise ServiceError(
                    f"{self.url}/json answers {response.status_code}, and not as the service does ({e}):"
                    " check that url is its --http-addr"
                ) from e
            if not self._answering:
                self._answering = True
                log.warning("the service at %s decides again", self.url)
            return decision
        said = response.text.strip().partition("\n")[0][:200]
        raise ServiceError(f"the service at {self.url} answers {response.status_code}: {said}")

    def _failed(self, e: Exception) -> ServiceError:
        """Names the reason why the service did not decide."""
        if isinstance(e, ServiceError):
            return e
        if isinstance(e, httpx.TimeoutException | TimeoutError):
            return ServiceError(f"the service at {self.url} did not answer within {self.timeout:g} s")
        if isinstance(e, httpx.RemoteProtocolError):
            return ServiceError(
                f"{self.url} does not answer in HTTP ({e}): if that stays so, check that it is --http-addr"
                " and not --grpc-addr"
            )
        return ServiceError(f"the service at {self.url} is away: {e or type(e).__name__}")

    def _undecided(self, error: ServiceError) -> Decision:
        """Decides as on_error says."""
        if self._answering:
            self._answering = False
            log.warning("%s; on_error is %s", error, self.on_error)
        if self.on_error == "raise":
            raise error
        return Decision(self.on_error == "allow", error=error)

    def _body(self, entries: Entries, hits: int, back: bool) -> dict[str, Any]:
        return protocol.request(self.domain, entries, hits, back)

    # Holding.

    def _hold_entries(self, key: Key) -> Entries:
        return (*protocol.entries_of(self.entry, key), (self._hold_by, uuid.uuid4().hex))

    # The admin address.

    def _admin_request(self, http: T, method: str, path: str, **what: Any) -> httpx.Request:
        if not self._admin_url:
            raise ValueError(
                "admin_url is not given: get_stats and reset need the admin address, such as"
                " admin_url='http://localhost:6070'"
            )
        headers = {"Authorization": f"Bearer {self._admin_token}"} if self._admin_token else {}
        return http.build_request(method, self._admin_url + path, headers=headers, **what)

    def _counters_request(self, http: T, key: Key) -> httpx.Request:
        descriptor = protocol.descriptor_query(protocol.entries_of(self.entry, key))
        query = {"domain": self.domain, "descriptor": descriptor}
        return self._admin_request(http, "GET", "/admin/counters", params=query)

    def _reset_request(self, http: T, key: Key) -> httpx.Request:
        entries = [{"key": k, "value": v} for k, v in protocol.entries_of(self.entry, key)]
        return self._admin_request(
            http, "POST", "/admin/reset", json={"domain": self.domain, "entries": entries}
        )

    def _admin_answer(self, response: httpx.Response) -> dict[str, Any]:
        where = f"the admin address {self._admin_url}"
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise AdminError(f"{where} refuses admin_token: give the text of its --admin-token-file", 401)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise AdminError(
                f"{where} answers {response.status_code} without JSON: check admin_url", response.status_code
            )
        if response.status_code != httpx.codes.OK:
            said = ": ".join(str(answer[k]) for k in ("title", "detail") if answer.get(k))
            raise AdminError(f"{where} answers {response.status_code}: {said}", response.status_code)
        return answer

    def _admin_failed(self, e: Exception) -> AdminError:
        return AdminError(f"the admin address {self._admin_url}: {e or type(e).__name__}")


class _Used:
    """The hits that are charged when a body ends."""

    def __init__(self, decision: Decision, hits: int) -> None:
        self.decision = decision
        self._hits = hits

    @property
    def hits(self) -> int:
        return self._hits

    @hits.setter
    def hits(self, hits: int) -> None:
        # Here, and not when the body ends: then it would be too late to charge anything.
        self._hits = protocol.check_hits(hits, 0)


class Hold(_Used):
    """The hits that a request holds while the body of ``hold`` runs.

    Attributes:
        decision: the service's.
        hits: what is charged when the body ends. Set it to what the body has used; until then it is
            what was asked for. A limit of ``concurrency`` charges nothing.
    """


class Cost(_Used):
    """The cost of the body of ``cost_after``.

    Attributes:
        decision: the service's, from before the body.
        hits: what is charged when the body ends. Set it to what the body has used; until then it is 0.
    """


class RateLimiter(_Limiter[httpx.Client]):
    """Asks one service for decisions, and waits for them. Made once and shared by all threads.

    It connects with the first call, so that a service that is away does not keep a program from
    starting. Each process has connections of its own, also after a fork.
    """

    def _make(self) -> httpx.Client:
        return httpx.Client(**self._options())

    def allow(self, key: Key, hits: int = 1) -> Decision:
        """Charges hits and reports whether the request may go on. 0 hits only look.

        Args:
            key: the value of ``entry``, or all entries, such as ``{"user": "alice", "path": "/x"}``.
            hits: what the request costs.

        Raises:
            ServiceError: the service did not decide, and on_error is ``raise``.
            RequestError: the service finds the request wrong, in every mode.
            ValueError, TypeError: which argument is wrong.
        """
        return self._ask(protocol.entries_of(self.entry, key), protocol.check_hits(hits, 0))

    def peek(self, key: Key) -> Decision:
        """Charges nothing and reports the remaining hits.

        The service lets a look pass also when none remain: see ``remaining``. Raises as ``allow``.
        """
        return self._ask(protocol.entries_of(self.entry, key), 0)

    def refund(self, key: Key, hits: int = 1) -> Decision:
        """Gives hits back, never beyond what was used. Raises as ``allow`` does."""
        return self._ask(protocol.entries_of(self.entry, key), protocol.check_hits(hits, 1), back=True)

    @contextmanager
    def hold(self, key: Key, hits: int = 1) -> Iterator[Hold]:
        """Holds hits of a rule with a ``hold`` while the body runs, and settles also when it fails.

        If the service can't be told that the body has ended, the hold ends when the rule says.

        Raises:
            OverLimitError: refused; the body does not run.
            ServiceError, RequestError, ValueError, TypeError: as ``allow``.
        """
        entries = self._hold_entries(key)
        held = Hold(self._ask(entries, protocol.check_hits(hits, 0)), hits)
        if not held.decision:
            raise OverLimitError(held.decision)
        try:
            yield held
        finally:
            try:
                self._ask((*entries, self._settled_by), held.hits)
            except DistLimiterError as e:
                log.warning("a hold was not given back, and ends when it expires: %s", e)

    @contextmanager
    def cost_after(self, key: Key) -> Iterator[Cost]:
        """Runs a body whose cost is known when it has ended, and charges it then, also when it fails.

        The body runs as long as anything is left. Give the rule ``denied_hits: count``, so that a cost
        beyond what is left is charged as well. A cost that the service can't be told is logged.

        Raises:
            OverLimitError: nothing is left; the body does not run.
            ServiceError, RequestError, ValueError, TypeError: as ``allow``.
        """
        cost = Cost(self._ask(protocol.entries_of(self.entry, key), 0), 0)
        if not cost.decision:
            raise OverLimitError(cost.decision)
        try:
            yield cost
        finally:
            self._charge(key, cost.hits)

    def _charge(self, key: Key, hits: int) -> None:
        """Charges a cost that is known too late to refuse anything."""
        if not hits:
            return
        try:
            self._ask(protocol.entries_of(self.entry, key), hits)
        except DistLimiterError as e:
            log.warning("%d hits were not charged: %s", hits, e)

    def get_stats(self, key: Key) -> tuple[Counter, ...]:
        """Returns the counters of a key, one for each limit that applies. Charges nothing.

        The source is ``GET /admin/counters`` of the admin address. It takes 5 s at most.

        Raises:
            AdminError: the admin address is away or refuses.
            ValueError, TypeError: which argument is wrong.
        """
        return protocol.counters(self._admin(self._counters_request, key))

    def reset(self, key: Key) -> int:
        """Forgets the counters of a key and returns how many were in use. Raises as ``get_stats``.

        It asks ``POST /admin/reset`` of the admin address.
        """
        return int(self._admin(self._reset_request, key)["counters"])

    def close(self) -> None:
        """Ends the connections. The next call makes new ones."""
        if http := self._pools.pop(None):
            http.close()

    def __enter__(self) -> RateLimiter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, entries: Entries, hits: int, back: bool = False) -> Decision:
        try:
            return self._decided(
                self._pools.get(None).post(
                    self.url + "/json",
                    json=self._body(entries, hits, back),
                    extensions={"timeout": _Deadline(self.timeout)},
                )
            )
        except (ServiceError, httpx.HTTPError) as e:
            return self._undecided(self._failed(e))

    def _admin(self, make: Callable[[httpx.Client, Key], httpx.Request], key: Key) -> dict[str, Any]:
        http = self._pools.get(None)
        request = make(http, key)
        request.extensions["timeout"] = _Deadline(_ADMIN_TIMEOUT)
        try:
            response = http.send(request)
        except httpx.HTTPError as e:
            raise self._admin_failed(e) from e
        return self._admin_answer(response)


class AsyncRateLimiter(_Limiter[httpx.AsyncClient]):
    """Asks one service for decisions, for asyncio. Made once and shared by all tasks.

    It is ``RateLimiter`` with ``await``, and blocks no event loop. Each event loop and each process has
    connections of its own.
    """

    def _make(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._options())

    async def allow(self, key: Key, hits: int = 1) -> Decision:
        """As ``RateLimiter.allow``."""
        return await self._ask(protocol.entries_of(self.entry, key), protocol.check_hits(hits, 0))

    async def peek(self, key: Key) -> Decision:
        """As ``RateLimiter.peek``."""
        return await self._ask(protocol.entries_of(self.entry, key), 0)

    async def refund(self, key: Key, hits: int = 1) -> Decision:
        """As ``RateLimiter.refund``."""
        return await self._ask(protocol.entries_of(self.entry, key), protocol.check_hits(hits, 1), back=True)

    @asynccontextmanager
    async def hold(self, key: Key, hits: int = 1) -> AsyncIterator[Hold]:
        """As ``RateLimiter.hold``. It settles also when the body is cancelled."""
        entries = self._hold_entries(key)
        try:
            held = Hold(await self._ask(entries, protocol.check_hits(hits, 0)), hits)
        except asyncio.CancelledError:
            await self._settle(entries, 0)  # the service may have it
            raise
        if not held.decision:
            raise OverLimitError(held.decision)
        try:
            yield held
        finally:
            await self._settle(entries, held.hits)

    async def _settle(self, entries: Entries, hits: int) -> None:
        with anyio.CancelScope(shield=True):  # it takes no longer than the timeout
            try:
                await self._ask((*entries, self._settled_by), hits)
            except DistLimiterError as e:
                log.warning("a hold was not given back, and ends when it expires: %s", e)

    @asynccontextmanager
    async def cost_after(self, key: Key) -> AsyncIterator[Cost]:
        """As ``RateLimiter.cost_after``. It charges also when the body is cancelled."""
        cost = Cost(await self._ask(protocol.entries_of(self.entry, key), 0), 0)
        if not cost.decision:
            raise OverLimitError(cost.decision)
        try:
            yield cost
        finally:
            await self._charge(key, cost.hits)

    async def _charge(self, key: Key, hits: int) -> None:
        if not hits:
            return
        with anyio.CancelScope(shield=True):  # it takes no longer than the timeout
            try:
                await self._ask(protocol.entries_of(self.entry, key), hits)
            except DistLimiterError as e:
                log.warning("%d hits were not charged: %s", hits, e)

    async def get_stats(self, key: Key) -> tuple[Counter, ...]:
        """As ``RateLimiter.get_stats``."""
        return protocol.counters(await self._admin(self._counters_request, key))

    async def reset(self, key: Key) -> int:
        """As ``RateLimiter.reset``."""
        return int((await self._admin(self._reset_request, key))["counters"])

    async def aclose(self) -> None:
        """Ends the connections of this event loop. The next call makes new ones."""
        if http := self._pools.pop(asyncio.get_running_loop()):
            await http.aclose()

    async def __aenter__(self) -> AsyncRateLimiter:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _ask(self, entries: Entries, hits: int, back: bool = False) -> Decision:
        http = self._pools.get(asyncio.get_running_loop())
        try:
            with anyio.fail_after(self.timeout):
                response = await http.post(
                    self.url + "/json", json=self._body(entries, hits, back), timeout=None
                )
            return self._decided(response)
        except (ServiceError, httpx.HTTPError, TimeoutError) as e:
            return self._undecided(self._failed(e))

    async def _admin(
        self, make: Callable[[httpx.AsyncClient, Key], httpx.Request], key: Key
    ) -> dict[str, Any]:
        http = self._pools.get(asyncio.get_running_loop())
        request = make(http, key)
        try:
            with anyio.fail_after(_ADMIN_TIMEOUT):
                response = await http.send(request)
        except (httpx.HTTPError, TimeoutError) as e:
            raise self._admin_failed(e) from e
        return self._admin_answer(response)
