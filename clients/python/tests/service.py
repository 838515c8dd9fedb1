"""The real service, in memory, on free ports of loopback."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

TOKEN = "a token of the tests, which nobody else has"

RULES = """
domain: edge
descriptors:
  - key: user
    rate_limit: {name: per_user, unit: hour, requests_per_unit: 3}
  - key: many
    rate_limit: {algorithm: token_bucket, unit: day, requests_per_unit: 50}
  - key: own
    rate_limit: {unit: hour, requests_per_unit: 1, raw_body: "slow down"}
  - key: cost
    rate_limit: {unit: day, requests_per_unit: 100}
  - key: window
    rate_limit: {window: 90s, requests_per_unit: 7}
---
domain: holds
limits:
  - name: in_flight
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 2}
  - name: tokens
    match: {budget: {}}
    count_by: [budget]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {unit: day, requests_per_unit: 100}
"""


class Process:
    """A server whose output is read until it says where it listens."""

    def __init__(self, *command: str, env: dict[str, str] | None = None, cwd: str | None = None) -> None:
        self.said: list[str] = []
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def says(self, pattern: str) -> re.Match[str]:
        """Waits for a line with the pattern."""
        end = time.monotonic() + 120
        while True:
            try:
                line = self._lines.get(timeout=max(0, end - time.monotonic()))
            except Empty:
                line = None
            if line is None:
                raise AssertionError(f"{self.process.args} did not say {pattern!r} but\n{''.join(self.said)}")
            self.said.append(line)
            if found := re.search(pattern, line):
                return found

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        self.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self.process.stdout.close()


class Service:
    """The service. Its URLs are ``url`` and ``admin_url``."""

    def __init__(self, binary: str) -> None:
        self._dir = tempfile.TemporaryDirectory()
        directory = Path(self._dir.name)
        (directory / "rules").mkdir()
        (directory / "rules" / "rules.yaml").write_text(RULES)
        token = directory / "token"
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)
        listen = "127.0.0.1:0"
        command = [binary, "serve", "--config", str(directory / "rules"), "--backend", "memory"]
        command += ["--grpc-addr", listen, "--http-addr", listen, "--admin-addr", listen]
        self._process = Process(*command, "--admin-token-file", str(token))
        self.url = "http://" + self._process.says(r"^HTTP\s+(\S+)")[1]
        self.admin_url = "http://" + self._process.says(r"^Admin\s+(\S+)")[1]

    def stop(self) -> None:
        self._process.stop()
        self._dir.cleanup()


class Away:
    """A port of loopback that is held. Nothing listens on it, or what listens never answers."""

    def __init__(self, hung: bool) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        if hung:
            self._socket.listen()
        self.url = "http://{}:{}".format(*self._socket.getsockname())

    def stop(self) -> None:
        self._socket.close()
