"""Answers of the service, and errors."""

from __future__ import annotations

from dataclasses import dataclass


class DistLimiterError(Exception):
    """Base of the errors that this package raises about the service."""


class ServiceError(DistLimiterError):
    """The service did not decide: it is away, too slow, or its store has failed."""


class RequestError(DistLimiterError):
    """The service finds the request wrong. Waiting does not mend it, so it is raised in every mode."""


class AdminError(DistLimiterError):
    """The admin address is away or refuses. ``status`` is that of HTTP, or None without an answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class OverLimitError(DistLimiterError):
    """``hold`` was refused; ``decision`` says which limit did it and when to come back."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(str(decision.error or f"over limit: come back in {decision.retry_after:.0f} s"))
        self.decision = decision


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit as the service reports it.

    Attributes:
        name: of the rule; empty: it has none.
        requests: how many per window.
        window: in seconds; 0: the limit has none, or a unit that this package does not know.
    """

    name: str
    requests: int
    window: int


@dataclass(frozen=True, slots=True)
class Decision:
    """The service's decision about one key. It is true if the request may go on.

    Attributes:
        allowed: whether the request may go on.
        limit: the one with the least room of those that apply; None: none applies.
        remaining: how many hits of ``limit`` are left; None without a limit.
        reset_after: seconds until the counter of ``limit`` is unused again. 0 for a refusal, of which the
            service says ``retry_after`` only.
        retry_after: seconds until the same request would pass; 0 if it passes.
        headers: what the service is set to add to responses.
        body: what the rule wants said in the response to a refused request.
        error: why the service did not decide (see ``on_error``); None: it did.
    """

    allowed: bool
    limit: Limit | None = None
    remaining: int | None = None
    reset_after: float = 0.0
    retry_after: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    error: ServiceError | None = None

    def __bool__(self) -> bool:
        return self.allowed


@dataclass(frozen=True, slots=True)
class Counter:
    """The state of one counter, as the admin address shows it.

    Attributes:
        rule: the path of its rule, such as ``user``.
        name: of the limit; empty: it has none.
        algorithm: such as ``token_bucket``.
        requests: how many ``limit`` allows per ``unit_multiplier`` units.
        unit: such as ``minute``.
        unit_multiplier: how many units the window has.
        allowed: whether one hit would pass now.
        remaining: how many hits are left.
        reset_after: seconds until it equals one that was never used.
        retry_after: seconds until one hit passes; None: never.
        held: how many requests hold of it, under a rule with a hold.
    """

    rule: str
    name: str
    algorithm: str
    requests: int
    unit: str
    unit_multiplier: int
    allowed: bool
    remaining: int
    reset_after: float
    retry_after: float | None
    held: int
