"""Requests to the service and its answers as JSON, without any input or output."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import httpx

from ._answers import Counter, Decision, Limit

Key: TypeAlias = str | Mapping[str, str] | Iterable[tuple[str, str]]
"""Whom to limit: the value of the limiter's entry, or all entries of a descriptor in order."""

Entries: TypeAlias = tuple[tuple[str, str], ...]

OnError = Literal["raise", "allow", "deny"]

MOST_HITS = 2**32 - 1
_DAY = 24 * 60 * 60

# As envoyproxy/ratelimit has them.
_SECONDS = {
    "SECOND": 1,
    "MINUTE": 60,
    "HOUR": 60 * 60,
    "DAY": _DAY,
    "WEEK": 7 * _DAY,
    "MONTH": 30 * _DAY,
    "YEAR": 365 * _DAY,
}


def check_url(argument: str, url: object, example: str) -> str:
    """Returns the URL without a slash at its end."""
    if not isinstance(url, str):
        raise TypeError(f"{argument} is {url!r}: give a URL, such as {example!r}")
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as e:
        raise ValueError(f"{argument} is {url!r} ({e}): give a URL, such as {example!r}") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError(f"{argument} is {url!r}: begin with http:// or https://, such as {example!r}")
    if parts.query or parts.fragment or parts.path.endswith("/json"):
        raise ValueError(f"{argument} is {url!r}: give only where the service is, such as {example!r}")
    return url.rstrip("/")


def check_text(argument: str, text: object, remedy: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{argument} is {text!r}, of type {type(text).__name__}: {remedy}")
    if not text:
        raise ValueError(f"{argument} is empty: {remedy}")
    return text


def check_timeout(timeout: object) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise ValueError(f"timeout is {timeout!r}: give a positive number of seconds, such as 0.25")
    return float(timeout)


def check_on_error(on_error: object) -> OnError:
    for mode in get_args(OnError):
        if on_error == mode:
            return mode  # type: ignore[no-any-return]
    raise ValueError(f"on_error is {on_error!r}: use 'raise', 'allow' or 'deny'")


def check_hits(hits: object, least: int, most: int = MOST_HITS) -> int:
    if isinstance(hits, bool) or not isinstance(hits, int):
        raise TypeError(f"hits is {hits!r}: give a whole number")
    if not least <= hits <= most:
        raise ValueError(f"hits is {hits}: give at least {least} and at most {most}")
    return hits


def entries_of(entry: str, key: Key) -> Entries:
    """Makes the entries of a descriptor."""
    if isinstance(key, str):
        entries: Entries = ((entry, key),)
    elif isinstance(key, Mapping):
        entries = tuple(key.items())
    else:
        try:
            entries = tuple((k, v) for k, v in key)
        except (TypeError, ValueError):
            raise TypeError(
                f"key is {key!r}, of type {type(key).__name__}: give the value of {entry!r} as a str, such as"
                " str(user_id), or all entries, such as {'user': 'alice', 'path': '/search'}"
            ) from None
    if not entries:
        raise ValueError("key has no entries: give at least one, such as {'user': 'alice'}")
    for name, value in entries:
        check_text("key: the key of an entry", name, "name the key that the rule has")
        if not isinstance(value, str):
            raise TypeError(f"key: the value of {name!r} is {value!r}: give a str, such as str(user_id)")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"key: the value of {name!r} is {value!r}: give text that UTF-8 can encode"
            ) from None
    return entries


def request(domain: str, entries: Entries, hits: int, back: bool = False) -> dict[str, Any]:
    """Makes a RateLimitRequest."""
    descriptor: dict[str, Any] = {
        "entries": [{"key": k, "value": v} for k, v in entries],
        "hitsAddend": hits,
    }
    if back:
        descriptor["isNegativeHits"] = True
    return {"domain": domain, "descriptors": [descriptor]}


def decision(content: bytes) -> Decision:
    """Reads a RateLimitResponse to a request with one descriptor. Raises ValueError if it is none."""
    answer = json.loads(content)
    if not isinstance(answer, dict) or "overallCode" not in answer:
        raise ValueError("the answer is no RateLimitResponse")
    try:
        return _decision(answer)
    except (AttributeError, KeyError, TypeError) as e:
        raise ValueError(f"the answer is no RateLimitResponse: {e!r}") from e


def _decision(answer: dict[str, Any]) -> Decision:
    allowed = answer["overallCode"] != "OVER_LIMIT"
    headers = tuple((h["key"], h.get("value", "")) for h in answer.get("responseHeadersToAdd", ()))
    body = base64.b64decode(answer.get("rawBody", ""))
    status: dict[str, Any] = next(iter(answer.get("statuses", ())), {})
    current = status.get("currentLimit")
    if current is None:
        return Decision(allowed, headers=headers, body=body)
    after = float(status.get("durationUntilReset", "0s").removesuffix("s"))
    return Decision(
        allowed,
        limit=Limit(
            name=current.get("name", ""),
            requests=current.get("requestsPerUnit", 0),
            window=_SECONDS.get(current.get("unit", ""), 0) * current.get("unitMultiplier", 1),
        ),
        remaining=status.get("limitRemaining", 0),
        reset_after=after if allowed else 0.0,
        retry_after=0.0 if allowed else after,
        headers=headers,
        body=body,
    )


def descriptor_query(entries: Entries) -> str:
    """Writes entries as the query of /admin/counters has them."""

    def escaped(text: str, special: str) -> str:
        return "".join("\\" + c if c in special else c for c in text)

    return ",".join(escaped(k, "\\,=") + "=" + escaped(v, "\\,") for k, v in entries)


def counters(answer: dict[str, Any]) -> tuple[Counter, ...]:
    """Reads the answer of /admin/counters."""
    return tuple(
        Counter(
            rule=c["rule"],
            name=c.get("name", ""),
            algorithm=c["algorithm"],
            requests=c["requests_per_unit"],
            unit=c["unit"],
            unit_multiplier=c.get("unit_multiplier", 1),
            allowed=c["allowed"],
            remaining=c["remaining"],
            reset_after=c["reset_after_seconds"],
            retry_after=c["retry_after_seconds"],
            held=c.get("held", 0),
        )
        for c in answer["counters"]
    )
