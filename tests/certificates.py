"""Certificates for tests, each signed by itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

Files = tuple[Path, Path]
ELLIPTIC = "ec", "-pkeyopt", "ec_paramgen_curve:P-256"
RSA = ("rsa:2048",)
ALTERNATIVE_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"


def certificate_write(directory: Path, name: str, kind: tuple[str, ...] = ELLIPTIC) -> Files:
    """A certificate for `name` and this machine, and its key."""
    files = directory / f"{name}.crt", directory / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", *kind),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", ALTERNATIVE_NAMES),
            *("-out", files[0], "-keyout", files[1]),
        ],
        check=True,
        capture_output=True,
    )
    return files
