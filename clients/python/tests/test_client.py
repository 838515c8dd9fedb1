"""The clients and the real service."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Thread

import pytest
from service import TOKEN

from distlimiter import (
    AdminError,
    AsyncRateLimiter,
    Limit,
    OverLimitError,
    RateLimiter,
    RequestError,
    ServiceError,
)

PATIENT = 20.0  # the machine is busy, and no test is about it


class Waiting:
    """An AsyncRateLimiter as if it were a RateLimiter, so that both pass the same tests."""

    def __init__(self, *args, **options):
        self.limiter = AsyncRateLimiter(*args, **options)
        self.runner = asyncio.new_event_loop()

    def __getattr__(self, name):
        method = getattr(self.limiter, name)
        if not inspect.iscoroutinefunction(method):
            return method
        return lambda *args, **options: self.runner.run_until_complete(method(*args, **options))

    def close(self):
        self.runner.run_until_complete(self.limiter.aclose())
        self.runner.close()


@pytest.fixture(params=[RateLimiter, Waiting])
def make(request):
    """Makes limiters of either kind."""
    made = []

    def make(url, entry="user", **options):
        made.append(request.param(url, "edge", entry, **{"timeout": PATIENT, **options}))
        return made[-1]

    yield make
    for limiter in made:
        limiter.close()


@pytest.fixture
def limiter(make, service):
    return make(service.url, admin_url=service.admin_url, admin_token=TOKEN)


def test_allow_says_what_is_left_and_then_when_to_come_back(limiter, user):
    for left in (2, 1, 0):
        d = limiter.allow(user)
        assert d and d.allowed and d.remaining == left and d.retry_after == 0 and d.error is None
        assert d.limit == Limit("per_user", 3, 3600)
        assert 0 < d.reset_after <= 3600
    d = limiter.allow(user)
    assert not d and not d.allowed and d.remaining == 0 and 0 < d.retry_after <= 3600 and d.reset_after == 0


def test_hits_are_charged_together_or_not_at_all(limiter, user):
    assert limiter.allow(user, hits=2).remaining == 1
    assert limiter.allow(user, hits=0).remaining == 1


def test_peek_charges_nothing_and_refund_gives_back(limiter, user):
    limiter.allow(user, hits=3)
    assert limiter.peek(user).remaining == 0 and limiter.peek(user).allowed
    assert limiter.refund(user, 2).remaining == 2
    assert limiter.peek(user).remaining == 2


def test_a_window_of_several_units_is_in_seconds(make, service, user):
    assert make(service.url, "window").peek(user).limit == Limit("", 7, 90)


def test_a_refusal_has_the_body_of_the_rule(make, service, user):
    limiter = make(service.url, "own")
    limiter.allow(user)
    assert limiter.allow(user).body == b"slow down"


def test_no_rule_is_no_limit(make, service, user):
    d = make(service.url, "unknown").allow(user)
    assert d.allowed and d.limit is None and d.remaining is None


@pytest.mark.parametrize("key", [{"user": "ü, \\=✓"}, [("user", "ü, \\=✓")]])
def test_all_entries_can_be_given(limiter, key):
    limiter.reset(key)
    assert limiter.allow(key).remaining == 2
    assert limiter.allow("ü, \\=✓").remaining == 1
    assert limiter.get_stats(key)[0].remaining == 1


def test_stats_and_reset_ask_the_admin_address(limiter, user):
    limiter.allow(user, hits=3)
    (counter,) = limiter.get_stats(user)
    assert (counter.rule, counter.name, counter.algorithm) == ("user", "per_user", "fixed_window")
    assert (counter.requests, counter.unit, counter.unit_multiplier) == (3, "hour", 1)
    assert not counter.allowed and counter.remaining == 0 and 0 < counter.retry_after <= 3600
    assert limiter.reset(user) == 1
    assert limiter.get_stats(user)[0].remaining == 3
    assert limiter.allow(user).remaining == 2


def test_the_admin_address_wants_its_token(make, service, user):
    limiter = make(service.url, admin_url=service.admin_url, admin_token="another")
    with pytest.raises(AdminError, match="admin_token") as e:
        limiter.reset(user)
    assert e.value.status == 401
    with pytest.raises(ValueError, match="admin_url is not given"):
        make(service.url).reset(user)
    with pytest.raises(AdminError, match="check admin_url"):
        make(service.url, admin_url=service.url).get_stats(user)


def test_an_admin_address_that_is_away_is_an_error(make, service, user):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        limiter = make(service.url, admin_url="http://{}:{}".format(*held.getsockname()))
        with pytest.raises(AdminError, match="the admin address"):
            limiter.get_stats(user)


@pytest.mark.parametrize("mode", ["raise", "allow", "deny"])
def test_a_service_that_is_away_is_bounded_in_time(make, away, mode):
    limiter = make(away.url, timeout=0.25, on_error=mode)
    begun = time.monotonic()
    if mode == "raise":
        with pytest.raises(ServiceError, match=away.url):
            limiter.allow("alice")
    else:
        d = limiter.allow("alice")
        assert d.allowed == (mode == "allow") and d.remaining is None
        assert isinstance(d.error, ServiceError) and away.url in str(d.error)
    assert time.monotonic() - begun < 2


def test_going_away_and_coming_back_is_logged_once(make, caplog):
    with Other(json=False) as other:
        limiter = make(other.url, on_error="allow")
        for _ in range(3):
            limiter.allow("alice")
        other.json = True
        for _ in range(3):
            limiter.allow("alice")
    said = [r.getMessage() for r in caplog.records if r.name == "distlimiter"]
    assert len(said) == 2 and "on_error is allow" in said[0] and "decides again" in said[1]


def test_what_is_no_service_is_named(make, service):
    with Other(json=False) as other, pytest.raises(ServiceError, match="check that url is its --http-addr"):
        make(other.url).allow("alice")
    with pytest.raises(ServiceError, match="answers 401"):
        make(service.admin_url).allow("alice")
    with Other(slow=True) as other, pytest.raises(ServiceError, match=r"within 0\.25 s"):
        make(other.url, timeout=0.25).allow("alice")


def test_a_request_that_the_service_finds_wrong_is_raised_in_every_mode(make, service):
    limiter = make(service.url, on_error="allow")
    getattr(limiter, "limiter", limiter).domain = ""  # the only way past the check
    with pytest.raises(RequestError, match="domain must not be empty"):
        limiter.allow("alice")


def test_fifty_threads_are_admitted_exactly_to_the_limit(service, user):
    limiter = RateLimiter(service.url, "edge", "many", timeout=PATIENT)
    begin = Barrier(50)

    def ask(_):
        begin.wait()
        return sum(limiter.allow(user).allowed for _ in range(3))

    with limiter, ThreadPoolExecutor(50) as pool:
        assert sum(pool.map(ask, range(50))) == 50


def test_a_hundred_tasks_are_admitted_exactly_to_the_limit(service, user):
    async def run():
        async with AsyncRateLimiter(service.url, "edge", "many", timeout=PATIENT) as limiter:
            return sum(d.allowed for d in await asyncio.gather(*(limiter.allow(user) for _ in range(100))))

    assert asyncio.run(run()) == 50


def test_a_limiter_outlives_its_event_loop(service, user):
    limiter = AsyncRateLimiter(service.url, "edge", "user", timeout=PATIENT)

    async def run():
        async with limiter:
            return (await limiter.allow(user)).remaining

    assert [asyncio.run(run()), asyncio.run(run())] == [2, 1]


def test_the_event_loop_goes_on_while_a_call_waits():
    async def answer(reader, writer):  # in the loop of the caller, which must not be blocked
        await reader.readuntil(b"}]}")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"overallCode": "OK"}')
        await writer.drain()
        writer.close()

    async def run():
        async with (
            await asyncio.start_server(answer, "127.0.0.1", 0) as server,
            AsyncRateLimiter(
                "http://{}:{}".format(*server.sockets[0].getsockname()), "edge", "user", timeout=PATIENT
            ) as limiter,
        ):
            return await limiter.allow("alice")

    assert asyncio.run(run()).allowed


def test_calls_share_a_connection(make):
    with Other() as other:
        limiter = make(other.url)
        for _ in range(10):
            assert limiter.allow("alice").allowed
        assert other.connections == 1


FORKS = """
import os, sys
from distlimiter import RateLimiter
limiter = RateLimiter(sys.argv[1], "edge", "many", timeout=20)
limiter.allow("before the fork")

def ask():
    for left in range(49, 29, -1):
        d = limiter.allow(f"{sys.argv[2]} {os.getpid()}")
        assert d.remaining == left, (left, d)

for _ in range(3):
    if not os.fork():
        ask()
        sys.exit()
ask()
for _ in range(3):
    assert os.wait()[1] == 0
"""


def test_forked_processes_have_connections_of_their_own(service, user):
    subprocess.run([sys.executable, "-c", FORKS, service.url, user], check=True, timeout=60, env=with_path())


def with_path():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"url": "localhost:8080"}, "url is 'localhost:8080': begin with http://"),
        ({"url": "http://localhost:8080/json"}, "url .* give only where the service is"),
        ({"url": "http://localhost:port"}, "url is .* give a URL"),
        ({"url": None}, "url is None: give a URL"),
        ({"domain": ""}, "domain is empty: name one"),
        ({"entry": None}, "entry is None, .* name the key"),
        ({"timeout": 0}, "timeout is 0: give a positive number of seconds"),
        ({"timeout": "1"}, "timeout is '1'"),
        ({"on_error": "ignore"}, "on_error is 'ignore': use 'raise', 'allow' or 'deny'"),
        ({"admin_url": "localhost"}, "admin_url is 'localhost': begin with"),
        ({"admin_token": "x"}, "admin_token is given without admin_url"),
        ({"key_extractor": "user"}, "key_extractor is 'user': give a function"),
        ({"tls": True}, "tls is True: give an ssl.SSLContext"),
        ({"settled_by": "phase=done"}, "settled_by"),
    ],
)
@pytest.mark.parametrize("kind", [RateLimiter, AsyncRateLimiter])
def test_a_wrong_argument_is_named_with_the_remedy(kind, given, says):
    with pytest.raises((ValueError, TypeError), match=says):
        kind(**{"url": "http://localhost:8080", "domain": "edge", "entry": "user", **given})


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda it: it.allow(7), "key is 7, of type int: give the value of 'user' as a str"),
        (lambda it: it.allow(None), "key is None"),
        (lambda it: it.allow({}), "key has no entries"),
        (lambda it: it.allow({"user": 7}), "the value of 'user' is 7: give a str"),
        (lambda it: it.allow("\ud800"), "give text that UTF-8 can encode"),
        (lambda it: it.allow("alice", hits=-1), "hits is -1: give at least 0"),
        (lambda it: it.allow("alice", hits=1.5), "hits is 1.5: give a whole number"),
        (lambda it: it.refund("alice", 0), "hits is 0: give at least 1"),
    ],
)
def test_a_wrong_call_is_named_with_the_remedy(limiter, call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call(limiter)


@pytest.fixture
def slots(service):
    with RateLimiter(service.url, "holds", "user", timeout=PATIENT) as limiter:
        yield limiter


def test_a_hold_ends_with_its_body_also_when_that_fails(slots, user):
    with slots.hold(user), slots.hold(user):
        with pytest.raises(OverLimitError) as e, slots.hold(user):
            pytest.fail("the body ran")
        assert e.value.decision.retry_after == 1
    with pytest.raises(ZeroDivisionError), slots.hold(user):
        raise ZeroDivisionError
    with slots.hold(user), slots.hold(user):
        pass


def test_a_hold_charges_what_the_body_has_used(service, user):
    with RateLimiter(service.url, "holds", "budget", timeout=PATIENT) as budget:
        with budget.hold(user, hits=80) as held:
            assert held.decision.remaining == 20
            with pytest.raises(OverLimitError), budget.hold(user, hits=30):
                pytest.fail("the body ran")
            held.hits = 10
        with budget.hold(user, hits=90) as held:
            assert held.decision.remaining == 0


def test_a_hold_of_a_task_ends_also_when_that_is_cancelled(service, user):
    async def run():
        async with AsyncRateLimiter(service.url, "holds", "user", timeout=PATIENT) as limiter:
            running = asyncio.Event()

            async def body():
                async with limiter.hold(user), limiter.hold(user):
                    running.set()
                    await asyncio.Event().wait()

            task = asyncio.ensure_future(body())
            await running.wait()
            with pytest.raises(OverLimitError):
                async with limiter.hold(user):
                    pytest.fail("the body ran")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with limiter.hold(user), limiter.hold(user):
                pass

    asyncio.run(run())


def test_a_hold_that_cannot_be_given_back_does_not_hide_the_body(caplog):
    with (
        Other() as other,
        RateLimiter(other.url, "edge", "user", timeout=PATIENT) as limiter,
        limiter.hold("alice"),
    ):
        other.json = False
    assert any("a hold was not given back" in r.getMessage() for r in caplog.records)


def test_a_cost_is_charged_after_the_body_also_when_that_fails(make, service, user):
    limiter = make(service.url, "cost")
    run = getattr(limiter, "runner", None)

    def spend(hits, error=None):
        if run is None:
            with limiter.cost_after(user) as cost:
                cost.hits = hits
                if error:
                    raise error
            return

        async def body():
            async with limiter.limiter.cost_after(user) as cost:
                cost.hits = hits
                if error:
                    raise error

        run.run_until_complete(body())

    spend(60)
    assert limiter.peek(user).remaining == 40
    with pytest.raises(ZeroDivisionError):
        spend(30, ZeroDivisionError())
    spend(0)
    assert limiter.peek(user).remaining == 10
    spend(50)  # anything was left
    with pytest.raises(OverLimitError):
        spend(1)


def test_a_cost_is_charged_also_when_the_task_is_cancelled(service, user):
    async def run():
        async with AsyncRateLimiter(service.url, "edge", "cost", timeout=PATIENT) as limiter:
            running = asyncio.Event()

            async def body():
                async with limiter.cost_after(user) as cost:
                    cost.hits = 60
                    running.set()
                    await asyncio.Event().wait()

            task = asyncio.ensure_future(body())
            await running.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return (await limiter.peek(user)).remaining

    assert asyncio.run(run()) == 40


def test_a_cost_that_cannot_be_charged_is_logged_and_does_not_hide_the_body(caplog):
    with (
        Other() as other,
        RateLimiter(other.url, "edge", "user", timeout=PATIENT) as limiter,
        limiter.cost_after("alice") as cost,
    ):
        cost.hits = 7
        other.json = False
    assert any("7 hits were not charged" in r.getMessage() for r in caplog.records)


def test_wrong_hits_are_named_where_they_are_set(slots, user):
    with slots.hold(user), pytest.raises(TypeError, match=r"hits is 1\.5"), slots.hold(user) as held:
        held.hits = 1.5
    with slots.hold(user), slots.hold(user):  # both were given back
        pass


def test_a_hold_that_is_cancelled_while_it_asks_is_given_back():
    settled = asyncio.Event()
    asked = asyncio.Event()

    async def answer(reader, writer):
        while body := await reader.readuntil(b"}]}"):
            if b"phase" in body:
                settled.set()
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"overallCode": "OK"}')
                return writer.close()
            asked.set()  # and nothing is answered

    async def run():
        async with (
            await asyncio.start_server(answer, "127.0.0.1", 0) as server,
            AsyncRateLimiter(
                "http://{}:{}".format(*server.sockets[0].getsockname()), "edge", "user", timeout=PATIENT
            ) as limiter,
        ):

            async def body():
                async with limiter.hold("alice"):
                    pytest.fail("the body ran")

            task = asyncio.ensure_future(body())
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert settled.is_set()

    asyncio.run(run())


class Other:
    """Another HTTP server: it counts connections, answers OK or something else, or drips for ever."""

    def __init__(self, json=True, slow=False):
        self.json = json
        self.connections = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                outer.connections += 1
                super().setup()

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                body = b'{"overallCode": "OK"}' if outer.json else b"<html>"
                self.send_response(200)
                self.send_header("Content-Length", "1000" if slow else str(len(body)))
                self.end_headers()
                if slow:
                    self.wfile.flush()
                    self.connection.recv(1)  # until the client has given up
                    self.close_connection = True
                else:
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        outer = self
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://{}:{}".format(*self._server.server_address)
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
