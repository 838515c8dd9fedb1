"""Measures how long a request takes that the middleware limits, beside one that it exempts.

One request at a time, in turn, so that a change of the machine's load meets both alike. From
clients/python: ``PYTHONPATH=src:tests python tests/latency.py PATH-OF-RATELIMIT``.
"""

from __future__ import annotations

import os
import sys
from statistics import quantiles
from time import perf_counter

from service import Service
from test_servers import SITES, Site

REQUESTS = 1000
WARM_UP = 50


def measure(site: Site) -> dict[str, list[float]]:
    """The times of exempt and of limited requests, in ms."""
    took: dict[str, list[float]] = {"/healthz": [], "/": []}
    for n in range(WARM_UP + REQUESTS):
        for path, times in took.items():
            begun = perf_counter()
            answer = site.get(path, f"{site.url} {n}")  # each has a counter of its own
            if n >= WARM_UP:
                times.append((perf_counter() - begun) * 1000)
            assert answer.status_code == 200
            assert ("RateLimit-Limit" in answer.headers) == (path == "/")
    return took


def compare(service: Service) -> None:
    print(f"load of the machine: {os.getloadavg()[0]:.1f}\n")
    print("| | exempt, p50 | limited, p50 | exempt, p99 | limited, p99 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, how in SITES.items():
        site = Site(how, service.url).ready()
        try:
            cuts = [quantiles(times, n=100) for times in measure(site).values()]
        finally:
            site.terminate()
            site.stop()
        figures = (cut[p - 1] for p in (50, 99) for cut in cuts)
        print(f"| {name} |", " | ".join(f"{ms:.1f}" for ms in figures), "|", flush=True)


def main() -> None:
    service = Service(sys.argv[1])
    try:
        compare(service)
    finally:
        service.stop()


if __name__ == "__main__":
    main()
