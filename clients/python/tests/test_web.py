"""Options of the middleware, and whom a request is from."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test.utils import override_settings
from flask import Flask

from distlimiter import AsyncRateLimiter, Decision, RateLimiter, Request, header, peer_address
from distlimiter._web import Policy
from distlimiter.asgi import RateLimitMiddleware
from distlimiter.django import RateLimitMiddleware as RateLimitMiddlewareOfDjango
from distlimiter.django import async_limiter, limiter, rate_limit
from distlimiter.flask import RateLimit, limit

URL = "http://localhost:8080"


def request(peer="192.0.2.1", method="GET", path="/", **headers):
    named = {name.lower().replace("_", "-"): value for name, value in headers.items()}
    return Request(method, path, peer, lambda name: named.get(name.lower(), []), None)


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("192.0.2.1", ["6.6.6.6"], [], "192.0.2.1"),
        ("192.0.2.1", ["6.6.6.6"], ["10.0.0.0/8"], "192.0.2.1"),
        ("10.0.0.1", ["6.6.6.6, 192.0.2.7"], ["10.0.0.0/8"], "192.0.2.7"),
        ("10.0.0.1", ["6.6.6.6", "192.0.2.7, 10.0.0.2"], ["10.0.0.0/8"], "192.0.2.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], ["10.0.0.0/8"], "10.0.0.3"),
        ("10.0.0.1", ["6.6.6.6, nonsense"], ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", [], ["10.0.0.1"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7:1234"], ["10.0.0.0/8"], "192.0.2.7"),
        ("10.0.0.1", ["[2001:db8::7]:1234"], ["10.0.0.0/8"], "2001:db8::7"),
        ("10.0.0.1", ["[2001:db8::7]"], ["10.0.0.0/8"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["::ffff:192.0.2.7"], ["10.0.0.0/8"], "192.0.2.7"),
        ("2001:db8::1", ["2001:DB8:0::7"], ["2001:db8::1/128"], "2001:db8::7"),
        ("fe80::1%eth0", [], [], "fe80::1"),
        ("", ["6.6.6.6"], ["0.0.0.0/0"], ""),
    ],
)
def test_peer_address_reads_what_trusted_proxies_have_written(peer, forwarded, trusted, address):
    assert peer_address(*trusted)(request(peer, X_Forwarded_For=forwarded)) == address


def test_header_takes_the_value_or_the_default():
    assert header("X-User")(request(X_User=["alice"])) == "alice"
    assert header("X-User")(request()) == ""
    assert header("X-User", default="anonymous")(request(X_User=[""])) == "anonymous"


def policy(**options):
    return Policy.of(RateLimiter(URL, "edge", "user"), {"key_extractor": header("X-User"), **options})


@pytest.mark.parametrize(
    ("path", "exempt"), [("/a", True), ("/a/", False), ("/b/c", True), ("/b/", True), ("/b", False)]
)
def test_exempt_paths_are_whole_or_starts(path, exempt):
    asks = policy(exempt_paths=["/a", "/b/*"]).asks(request(path=path, X_User=["alice"]))
    assert asks == (None if exempt else ("alice", 1))


def test_a_request_without_one_of_its_entries_is_not_limited():
    limited = policy(key_extractor=lambda r: {"path": r.path, "user": header("X-User")(r)})
    assert limited.asks(request()) is None
    assert limited.asks(request(X_User=["alice"])) == ({"path": "/", "user": "alice"}, 1)


def test_a_cost_may_be_of_the_request():
    assert policy(cost=lambda r: len(r.path)).asks(request(path="/abc", X_User=["alice"])) == ("alice", 4)


def test_dots_lead_out_of_an_exempt_path():
    limited = policy(exempt_paths=["/static/*"])
    for path in ("/static/../api", "/static/./x/..", "/static/a/../../api"):
        assert limited.asks(request(path=path, X_User=["alice"])) == ("alice", 1)
    assert limited.asks(request(path="/static/a..b/.c", X_User=["alice"])) is None


def test_beside_a_cost_after_a_request_itself_costs_nothing():
    def after(request, status, written):
        return written

    assert policy(cost_after=after).asks(request(X_User=["alice"])) == ("alice", 0)
    assert policy(cost_after=after, cost=2).asks(request(X_User=["alice"])) == ("alice", 2)
    assert policy().but({"cost_after": after}).asks(request(X_User=["alice"])) == ("alice", 0)
    assert policy(cost_after=after).hits_after(request(), 200, 2**33) == 2**32 - 1


@pytest.mark.parametrize("gives", [None, -1, 1.5, ZeroDivisionError()])
def test_a_wrong_cost_after_is_logged_and_charges_nothing(gives, caplog):
    def after(request, status, written):
        if isinstance(gives, Exception):
            raise gives
        return gives

    assert policy(cost_after=after).hits_after(request(), 200, 1) == 0
    assert "cost_after of GET / failed" in caplog.text


def test_headers_of_the_service_can_be_written_by_any_framework():
    decision = Decision(True, headers=(("x-rule", "größe ✓\r\nx: y"),))
    (value,) = policy().outcome(decision).headers.values()
    assert value.encode("latin-1") == "größe ✓  x: y".encode()


WRONG = [
    ({"cost_after": 5}, "cost_after is 5: give a function of the request, the status and the bytes"),
    ({"key_extractor": "user"}, "key_extractor is 'user': give a function"),
    ({"key_extractor": None}, "key_extractor is not given: say whom to limit"),
    ({"exempt_paths": "/healthz"}, r"exempt_paths is '/healthz': give a list, such as \['/healthz'\]"),
    ({"exempt_paths": ["healthz"]}, "exempt_paths has 'healthz': write a path"),
    ({"exempt_paths": ["/*/a"]}, "exempt_paths has '/\\*/a'"),
    ({"exempt_methods": "GET"}, "exempt_methods is 'GET': give a list"),
    ({"cost": -1}, "cost: hits is -1"),
    ({"status_code": 200}, "status_code is 200: use an error, such as 429"),
    ({"error_message": {"error": "no"}}, "error_message is .* give a str"),
    ({"headers": "no"}, "headers is 'no': use True or False"),
    ({"exempt_path": ["/"]}, "no option exempt_path: did you mean exempt_paths"),
]


@pytest.mark.parametrize(("options", "says"), WRONG)
def test_a_wrong_option_is_named_with_the_remedy(options, says):
    given = {"key_extractor": header("X-User"), **options}
    with pytest.raises((TypeError, ValueError), match=says):
        RateLimitMiddleware(None, limiter=AsyncRateLimiter(URL, "edge", "user"), **given)
    with pytest.raises((TypeError, ValueError), match=says):
        RateLimit(Flask("site"), RateLimiter(URL, "edge", "user"), **given)


def test_a_limiter_of_the_wrong_kind_is_refused():
    with pytest.raises(TypeError, match="would block the event loop: give an AsyncRateLimiter"):
        RateLimitMiddleware(None, limiter=RateLimiter(URL, "edge", "user"))
    with pytest.raises(TypeError, match="limiter is a AsyncRateLimiter: give a RateLimiter"):
        RateLimit(limiter=AsyncRateLimiter(URL, "edge", "user"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"RATE_LIMITER_URL": None}, "RATE_LIMITER_URL is None: give a URL"),
        ({"RATE_LIMITER_TIMEOU": 1}, "RATE_LIMITER_TIMEOU: did you mean RATE_LIMITER_TIMEOUT"),
        ({"RATE_LIMITER_TIMEOUT": "1s"}, "RATE_LIMITER_TIMEOUT is '1s': give a positive number"),
        ({"RATE_LIMITER_STATUS_CODE": 1}, "RATE_LIMITER_STATUS_CODE is 1: use an error"),
        ({"RATE_LIMITER_KEY_EXTRACTOR": "site.user"}, "RATE_LIMITER_KEY_EXTRACTOR is 'site.user' .* name a"),
    ],
)
def test_a_wrong_setting_is_named_with_the_remedy(settings, says):
    app = Flask("site")
    app.config.update(
        {
            "RATE_LIMITER_URL": URL,
            "RATE_LIMITER_DOMAIN": "edge",
            "RATE_LIMITER_ENTRY": "user",
            "RATE_LIMITER_KEY_EXTRACTOR": "distlimiter.peer_address",
            **settings,
        }
    )
    with pytest.raises(ValueError, match=says):
        RateLimit(app)


@pytest.mark.parametrize("missing", ["URL", "DOMAIN", "ENTRY", "KEY_EXTRACTOR"])
def test_a_missing_setting_is_named_with_an_example(missing):
    app = Flask("site")
    settings = {"URL": URL, "DOMAIN": "edge", "ENTRY": "user", "KEY_EXTRACTOR": peer_address()}
    app.config.update({f"RATE_LIMITER_{k}": v for k, v in settings.items() if k != missing})
    with pytest.raises(ValueError, match=f"RATE_LIMITER_{missing} is not set"):
        RateLimit(app)


def test_options_of_a_decorator_are_checked_where_it_stands():
    with pytest.raises(TypeError, match="no option entri: did you mean entry"):
        limit(entri="path")
    with pytest.raises(TypeError, match="limit takes its options by name"):
        limit("10/minute")
    app = Flask("site")
    app.testing = True
    app.get("/")(limit(lambda: "hello"))
    with pytest.raises(RuntimeError, match="limit needs the extension"):
        app.test_client().get("/")


@pytest.fixture(scope="module")
def django_settings():
    settings.configure(
        RATE_LIMITER_URL=URL,
        RATE_LIMITER_DOMAIN="edge",
        RATE_LIMITER_ENTRY="user",
        RATE_LIMITER_KEY_EXTRACTOR=header("X-User"),
    )


def test_django_takes_changed_settings_and_names_wrong_ones(django_settings):
    with override_settings(RATE_LIMITER_TIMEOUT=2.5):
        assert limiter().timeout == async_limiter().timeout == 2.5
    with (
        override_settings(RATE_LIMITER_TIMEOUT="1s"),
        pytest.raises(ImproperlyConfigured, match="RATE_LIMITER_TIMEOUT is '1s'"),
    ):
        RateLimitMiddlewareOfDjango(lambda request: None)
    assert limiter().timeout == 0.25


def test_django_says_how_to_decorate_a_class(django_settings):
    class Site:
        @rate_limit
        def get(self, request):
            pytest.fail("the view ran")

    with pytest.raises(TypeError, match="decorate a class with @method_decorator"):
        Site().get(None)
