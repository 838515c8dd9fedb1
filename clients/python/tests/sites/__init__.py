"""Sites that the tests start. SERVICE names the service, ON_ERROR the mode, TIMEOUT that of a call."""

import os

from distlimiter import Request

LIMITER = {
    "url": os.environ["SERVICE"],
    "domain": "edge",
    "entry": "user",
    "timeout": float(os.environ["TIMEOUT"]),
    "on_error": os.environ["ON_ERROR"],
}
OPTIONS = {
    "exempt_paths": ["/healthz", "/static/*"],
    "exempt_methods": ["OPTIONS"],
    "error_message": '{"error": "slow down"}',
    "content_type": "application/json",
}


def who(request: Request):
    """The user, or one of a crowd, for which there is another rule."""
    if many := request.values("X-Many"):
        return {"many": many[0]}
    return next(iter(request.values("X-User")), None)


def settings():
    return {
        "RATE_LIMITER_" + name.upper(): value
        for name, value in {**LIMITER, **OPTIONS, "key_extractor": "sites.who"}.items()
    }
