"""What tests ask of a running service from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import Any

from tests.stack import ROOT, Stack

RELAY_ADDRESS = "127.0.0.9"  # nobody else has it: a table that names it holds connection logs


def mint(stack: Stack, api_key: str) -> dict[str, Any]:
    """Mint credentials as a customer's server does."""
    request = urllib.request.Request(
        f"{stack.web_url}/api/v1/credentials",
        data=b'{"ttl": 3600}',
        headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        assert response.status == 201
        answer: dict[str, Any] = json.load(response)
        return answer


def inside(stack: Stack, action: str, project: str, *needles: str) -> dict[str, Any]:
    """Ask the service's database; `tests.e2e.inside` says what."""
    environment = {**stack.environment, "DJANGO_SETTINGS_MODULE": "mindmore.settings"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.inside", action, project, *needles],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
