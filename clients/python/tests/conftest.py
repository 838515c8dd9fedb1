from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from service import Away, Service

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def binary(tmp_path_factory):
    """The service itself: of the tree, or what RATELIMIT_BINARY names."""
    if named := os.environ.get("RATELIMIT_BINARY"):
        return named
    path = tmp_path_factory.mktemp("bin") / "ratelimit"
    subprocess.run(["go", "build", "-o", path, "./cmd/ratelimit"], cwd=ROOT, check=True)
    return str(path)


@pytest.fixture(scope="session")
def service(binary):
    s = Service(binary)
    yield s
    s.stop()


@pytest.fixture(params=["refused", "hung"])
def away(request):
    """A service that refuses connections, or accepts them and says nothing."""
    a = Away(request.param == "hung")
    yield a
    a.stop()


@pytest.fixture
def user(request):
    """A value that no other test uses."""
    return request.node.name
