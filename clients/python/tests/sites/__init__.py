"""Sites that the tests start. SERVICE names the service, ON_ERROR the mode, TIMEOUT that of a call."""

import os

from distlimiter import Request, header

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


# Bytes, or 7 of a response that is no success: known only after the fact.
COST = {
    "entry": "cost",
    "key_extractor": header("X-Cost"),
    "cost_after": lambda request, status, written: written if status == 200 else 7,
}
HALF = "é" * 10  # 20 bytes


def settings():
    return {
        "RATE_LIMITER_" + name.upper(): value
        for name, value in {**LIMITER, **OPTIONS, "key_extractor": "sites.who"}.items()
    }
