"""The middleware in real frameworks, behind real servers, in front of the real service."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import monotonic

import httpx
import pytest
from service import TOKEN, Away, Process
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from distlimiter import RateLimiter

TESTS = Path(__file__).parent


def uvicorn(app):
    return ["-m", "uvicorn", "--port", "0", "--log-level", "info", app], r"running on (http://\S+)"


def gunicorn(app, *options):
    return ["-m", "gunicorn", "-b", "127.0.0.1:0", "-w", "2", *options, app], r"Listening at: (http://\S+)"


RUNSERVER = (["-u", "-m", "django", "runserver", "--noreload", "127.0.0.1:0"], r"server at (http://\S+?)/?$")

SITES = {
    "fastapi-uvicorn": uvicorn("sites.fastapis:app"),
    "starlette-uvicorn": uvicorn("sites.starlettes:app"),
    "flask-gunicorn": gunicorn("sites.flasks:app", "--threads", "8", "--preload"),
    "django-runserver": RUNSERVER,
    "django-gunicorn": gunicorn("sites.wsgi:app", "--threads", "8"),
    "django-uvicorn": uvicorn("sites.asgi:app"),
}


class Site:
    def __init__(self, how, service, on_error="raise", timeout="20"):
        arguments, self._says = how
        env = {
            "SERVICE": service,
            "ON_ERROR": on_error,
            "TIMEOUT": timeout,
            "PYTHONPATH": f"{TESTS.parent / 'src'}:{TESTS}",
            "DJANGO_SETTINGS_MODULE": "sites.djangos",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._process = Process(sys.executable, *arguments, env=env, cwd=str(TESTS))

    def ready(self):
        self.url = self._process.says(self._says)[1]
        # gunicorn listens before its workers have loaded the site.
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=False)
        return self

    def get(self, path, user, **headers):
        return self.http.get(path, headers={"X-User": user, **headers})

    def terminate(self):
        self.http.close()
        self._process.terminate()

    def stop(self):
        self._process.stop()


def stop(sites):
    for act in (Site.terminate, Site.stop):
        for site in sites:
            act(site)


@pytest.fixture(scope="module")
def sites(service):
    """All sites, started at once."""
    started = {name: Site(how, service.url) for name, how in SITES.items()}
    yield {name: s.ready() for name, s in started.items()}
    stop(started.values())


@pytest.fixture(params=SITES)
def site(request, sites):
    return sites[request.param]


def test_200_and_then_429_with_headers(site, user):
    for left in "210":
        r = site.get("/", user)
        assert r.status_code == 200
        assert (r.headers["RateLimit-Limit"], r.headers["RateLimit-Remaining"]) == ("3", left)
        assert 0 < int(r.headers["RateLimit-Reset"]) <= 3600
    r = site.get("/", user)
    assert (r.status_code, r.text) == (429, '{"error": "slow down"}')
    assert r.headers["Content-Type"] == "application/json"
    assert r.headers["Retry-After"] == r.headers["RateLimit-Reset"] != "0"
    assert r.headers["RateLimit-Remaining"] == "0"
    assert r.headers["Content-Length"] == str(len(r.content))


def test_the_first_minute_of_the_page(service, tmp_path, user):
    page = (TESTS.parents[2] / "docs" / "client-python.md").read_text()
    program = re.search(r"^```python\n(# hello\.py\n.*?)^```$", page, re.M | re.S)[1]
    assert "http://localhost:8080" in program
    (tmp_path / "hello.py").write_text(program.replace("http://localhost:8080", service.url))
    arguments, says = uvicorn("hello:app")
    site = Site(([*arguments[:2], "--app-dir", str(tmp_path), *arguments[2:]], says), service.url)
    try:
        site.ready()
        # The page's limiter waits 0.25 s and then allows, which a busy machine may need.
        statuses = [site.get("/", user).status_code for _ in range(20)]
        assert statuses[0] == 200 and 429 in statuses
    finally:
        stop([site])


def test_exempt_paths_methods_and_requests_without_a_key(site, user):
    for _ in range(5):
        for path in ("/healthz", "/static/a/b"):
            r = site.get(path, user)
            assert r.status_code == 200 and "RateLimit-Limit" not in r.headers
        assert site.http.options("/", headers={"X-User": user}).status_code == 200
        assert site.http.get("/").status_code == 200
    assert site.get("/healthz/no", user).headers["RateLimit-Remaining"] == "2"


def test_reset_through_the_admin_address(site, service, user):
    while site.get("/", user).status_code == 200:
        pass
    with RateLimiter(
        service.url, "edge", "user", admin_url=service.admin_url, admin_token=TOKEN, timeout=20
    ) as limiter:
        assert limiter.reset(user) == 1
    assert site.get("/", user).headers["RateLimit-Remaining"] == "2"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("flask-gunicorn", "/decorated"),
        ("django-gunicorn", "/decorated"),
        ("django-gunicorn", "/decorated/class"),
        ("django-uvicorn", "/decorated"),
        ("django-uvicorn", "/decorated/async"),
    ],
)
def test_a_view_has_a_limit_of_its_own_beside_that_of_the_site(sites, name, path, user):
    r = sites[name].get(path, user)
    assert (r.status_code, r.headers["RateLimit-Limit"], r.headers["RateLimit-Remaining"]) == (200, "1", "0")
    assert sites[name].get(path, user).status_code == 429
    assert sites[name].get("/", user).headers["RateLimit-Remaining"] == "0"


COSTS = {
    "fastapi-uvicorn": ["/cost", "/cost/stream"],
    "flask-gunicorn": ["/cost", "/cost/stream", "/cost/file"],
    "django-gunicorn": ["/cost", "/cost/async", "/cost/stream", "/cost/file", "/cost/template"],
    "django-runserver": ["/cost", "/cost/stream"],
    "django-uvicorn": [
        "/cost",
        "/cost/async",
        "/cost/class/async",
        "/cost/stream",
        "/cost/stream/async",
        "/cost/file",
        "/cost/template",
    ],
}


@pytest.fixture(scope="module")
def costs(service):
    with RateLimiter(service.url, "edge", "cost", timeout=20) as limiter:
        yield limiter


def until_left(costs, user, left):
    """Waits until that much is left: the charge may follow the last byte."""
    end = monotonic() + 20
    while (remaining := costs.peek(user).remaining) != left:
        assert monotonic() < end, f"{remaining} are left, not {left}"


@pytest.mark.parametrize(("name", "path"), [(name, path) for name in COSTS for path in COSTS[name]])
def test_a_cost_is_charged_when_the_response_is_known(sites, costs, name, path, user):
    ask = {"headers": {"X-Cost": user}}
    r = sites[name].http.get(path, **ask)
    assert (r.status_code, len(r.content), r.headers["RateLimit-Remaining"]) == (200, 60, "100")
    until_left(costs, user, 40)
    assert sites[name].http.get(path, **ask).status_code == 200  # anything was left
    until_left(costs, user, 0)
    costs.allow(user)  # with denied_hits: count a look passes until the limit is exceeded
    assert sites[name].http.get(path, **ask).status_code == 429


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [
        ("fastapi-uvicorn", "/cost/fail", 500),
        ("flask-gunicorn", "/cost/fail", 500),
        ("django-gunicorn", "/cost/fail", 500),
        ("django-uvicorn", "/cost/fail", 500),
        ("django-uvicorn", "/cost/missing", 404),
    ],
)
def test_a_response_to_a_failure_has_its_cost(sites, costs, name, path, status, user):
    assert sites[name].http.get(path, headers={"X-Cost": user}).status_code == status
    until_left(costs, user, 93)


@pytest.mark.parametrize("name", ["fastapi-uvicorn", "flask-gunicorn", "django-gunicorn", "django-uvicorn"])
def test_a_response_without_a_body_has_no_bytes(sites, costs, name, user):
    assert sites[name].http.head("/cost", headers={"X-Cost": user}).status_code == 200
    assert sites[name].http.get("/cost", headers={"X-Cost": user}).status_code == 200
    until_left(costs, user, 40)


def test_a_websocket_has_the_cost_of_what_it_was_sent(sites, costs, user):
    url = sites["fastapi-uvicorn"].url.replace("http:", "ws:") + "/cost/socket"
    with connect(url, additional_headers={"X-Cost": user}, proxy=None) as socket:
        assert len(socket.recv()) == 10 and len(socket.recv()) == 20
    until_left(costs, user, 93)  # its status is 101


def test_a_websocket_is_limited_when_it_opens(sites, user):
    url = sites["fastapi-uvicorn"].url.replace("http:", "ws:") + "/socket"
    for left in "210":
        with connect(url, additional_headers={"X-User": user}, proxy=None) as socket:
            assert socket.recv() == "hello"
            assert socket.response.headers["RateLimit-Remaining"] == left
    with pytest.raises(InvalidStatus) as e:
        connect(url, additional_headers={"X-User": user}, proxy=None)
    assert e.value.response.status_code == 429 and "Retry-After" in e.value.response.headers


def test_fifty_clients_at_once_are_admitted_exactly_to_the_limit(site, user):
    begin = Barrier(50)

    def ask(_):
        begin.wait()
        return [site.http.get("/", headers={"X-Many": user}).status_code for _ in range(2)]

    with ThreadPoolExecutor(50) as pool:
        codes = [code for codes in pool.map(ask, range(50)) for code in codes]
    assert (codes.count(200), codes.count(429)) == (50, 50)


@pytest.mark.parametrize("name", ["starlette-uvicorn", "flask-gunicorn", "django-runserver"])
def test_while_the_service_is_away_each_mode_answers_in_time(name):
    # Connections to it are accepted, and nothing is answered: the worst case.
    service = Away(hung=True)
    sites = {
        mode: Site(SITES[name], service.url, on_error=mode, timeout="0.25")
        for mode in ("raise", "allow", "deny")
    }
    try:
        for mode, site in sites.items():
            assert site.ready().get("/healthz", "alice").status_code == 200
            begun = monotonic()
            r = site.get("/", "alice")
            assert 0.2 < monotonic() - begun < 5
            if mode == "allow":
                assert r.status_code == 200
            else:
                assert (r.status_code, r.text) == (503, "the rate limit can't be checked\n")
    finally:
        stop(sites.values())
        service.stop()
