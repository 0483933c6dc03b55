"""Questions from outside: is a port free, does a server really answer?"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from mindmore.processes import StartError

ANSWER_SECONDS_MAX = 1.0
STUN_MAGIC_COOKIE = bytes.fromhex("2112a442")  # RFC 8489 section 5
STUN_BINDING_REQUEST = b"\x00\x01"
STUN_BINDING_SUCCESS = b"\x01\x01"
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def port_check(kind: socket.SocketKind, address: str, port: int, *, names: tuple[str, str]) -> None:
    """Whether we may listen on `address` and `port`.

    Args:
        names: the variables that say the address and the port.

    Raises:
        StartError: we may not; the text says why and what to set.
    """
    address_name, port_name = names
    protocol = "TCP" if kind == socket.SOCK_STREAM else "UDP"
    try:
        family, _, _, _, sockaddr = socket.getaddrinfo(address, port, type=kind)[0]
        with socket.socket(family, kind) as listener:
            if kind == socket.SOCK_STREAM:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(sockaddr)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"{protocol} port {port} on {address} is taken: stop the program that listens "
                f"there, or set {port_name} to a free port"
            ) from error
        if error.errno == errno.EACCES:
            raise StartError(
                f"this account may not listen on {protocol} port {port}: set {port_name} to a "
                "port of 1024 or above"
            ) from error
        raise StartError(
            f"cannot listen on {address} ({error.strerror}): set {address_name} to an address "
            "of this machine"
        ) from error


def ports_apart(ports: Mapping[str, int]) -> None:
    """See that each part of the service has a port of its own.

    Args:
        ports: the variables and what they say; 0 for none.

    Raises:
        StartError: two have the same one.
    """
    known: dict[int, str] = {}
    for name, port in ports.items():
        other = known.setdefault(port, name)
        if port and other != name:
            raise StartError(f"{other} and {name} are both {port}: set one of them to another port")


def http_answers(address: str, port: int, path: str, *, host: str) -> bool:
    """Whether a GET is answered with 200.

    Args:
        host: what the Host header says.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(
            (ANY_ADDRESS.get(address, address), port), timeout=ANSWER_SECONDS_MAX
        ) as connection:
            connection.sendall(request.encode())
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def stun_answers(address: str, port: int) -> bool:
    """Whether a STUN Binding request over UDP is answered with success (RFC 8489 section 6)."""
    identifier = STUN_MAGIC_COOKIE + secrets.token_bytes(12)
    try:
        family, kind, _, _, sockaddr = socket.getaddrinfo(
            ANY_ADDRESS.get(address, address), port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as client:
            client.settimeout(0.2)
            client.connect(sockaddr)
            client.send(STUN_BINDING_REQUEST + b"\x00\x00" + identifier)
            answer = client.recv(2048)
    except OSError:
        return False
    return answer[:2] == STUN_BINDING_SUCCESS and answer[4:20] == identifier


def valkey_answers(path: Path) -> bool:
    """Whether the Valkey behind the unix socket `path` answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS_MAX)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
