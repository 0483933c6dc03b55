"""As much of HTTP as one answer to one GET takes (RFC 9110, RFC 9112); then the end."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

REQUEST_BYTES_MAX: Final = 8192


@dataclass(frozen=True)
class Request:
    """What was asked for, as far as anybody looks.

    Attributes:
        method, path: of the first line; the path without a query.
        accept: the formats that the scraper takes.
    """

    method: str
    path: str
    accept: str


@dataclass(frozen=True)
class Response:
    """One answer, after which the connection ends."""

    status: int
    content_type: str
    body: bytes
    allow: str = ""
    is_head: bool = False

    def encode(self) -> bytes:
        """As it goes over the wire."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
            *([f"Allow: {self.allow}"] if self.allow else []),
        ]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head if self.is_head else head + self.body


def request_parse(received: bytes) -> Request | None:
    """Read a request's head; None where it is none, or too long."""
    head, end, _ = received.partition(b"\r\n\r\n")
    if not end or len(head) > REQUEST_BYTES_MAX:
        return None
    first, *rest = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    headers: dict[str, str] = {}
    for line in rest:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    return Request(words[0], words[1].partition("?")[0], headers.get("accept", ""))
