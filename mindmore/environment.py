"""Reading the environment: one small type, so that a wrong value gives one clear line.

The process environment wins; `$MINDMORE_HOME/env` (KEY=value lines, mode 600) answers for what it
does not say: `manage.py up` writes the secrets there, and anyone may add lines. Last comes
`$MINDMORE_HOME/addresses`, where `manage.py up` notes its own PostgreSQL and Valkey.
"""

from __future__ import annotations

import os
import re
import secrets
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parseaddr
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

ENV_FILE = "env"
ADDRESSES_FILE = "addresses"
ADDRESSES = ("DATABASE_URL", "REDIS_URL")
SECRETS = ("MINDMORE_SECRET_KEY", "MINDMORE_TURN_SECRETS", "MINDMORE_TURN_NONCE_KEYS")
PORT_MAX = 65535
RELAY_PORT_MIN = 1024  # the lower ones belong to services
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HOST_NAME = re.compile(r"(?=.{1,254}$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.?)+")
# Fewer than 128 characters that need no quoting (RFC 8489 section 14.9); printable ASCII, as a part
# of every key: clients prepare other characters in different ways.
REALM = re.compile(r"(?! )[ !#-\[\]-~]{1,28}(?<! )")  # the smallest Allocate gets its answer
NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PROJECT = re.compile(r"prj_[a-z2-7]{12}")
KID = re.compile(r"[A-Za-z0-9._+/=-]{1,64}")  # Base64 too, as in RFC 7635 section 4.1.1
MAIL_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
TOKEN_KEY_LENGTHS = (16, 32)  # bytes: AES-128 and AES-256
SECRET_CHARACTERS_MIN = 32
SHOWN_CHARACTERS_MAX = 80
SECRET_COMMAND = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"  # noqa: S105 - it makes one
DATABASE_SCHEMES = ("postgresql", "postgres")
WEB_SCHEMES = ("https", "http")
REDIS_SCHEMES = ("redis", "rediss", "unix")
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Listeners:
    """Where the service listens."""

    web_host: str
    web_port: int
    turn_addresses: tuple[str, ...]
    turn_port: int
    turn_tls_port: int | None
    metrics_port: int  # 0: none

    @property
    def web_url(self) -> str:
        """The dashboard's address on this machine, without a slash at the end.

        By name where it is this machine: browsers give passkeys to names only.
        """
        host = "localhost" if self.web_host in (*ANY_ADDRESS, *LOOPBACK) else self.web_host
        return (
            f"http://[{host}]:{self.web_port}" if ":" in host else f"http://{host}:{self.web_port}"
        )


@dataclass(frozen=True)
class Environment:
    """The variables of this installation and where its data lives."""

    home: Path
    process: Mapping[str, str]
    files: Mapping[str, str]

    @classmethod
    def load(cls, *, default_home: Path) -> Environment:
        """Read everything, with the addresses of the servers that `manage.py up` started."""
        given = cls.load_given(default_home=default_home)
        addresses = read_env_file(given.home / ADDRESSES_FILE)
        return cls(home=given.home, process=given.process, files={**addresses, **given.files})

    @classmethod
    def load_given(cls, *, default_home: Path) -> Environment:
        """Read what people have set: `$MINDMORE_HOME/env` and the process environment."""
        home = Path(os.environ.get("MINDMORE_HOME") or default_home).absolute()
        return cls(home=home, process=os.environ.copy(), files=read_env_file(home / ENV_FILE))

    def listeners(self) -> Listeners:
        """Where web and relay listen."""
        certificate, _ = self.certificate()
        return Listeners(
            web_host=self.text("MINDMORE_WEB_HOST", "127.0.0.1"),
            web_port=self.port("MINDMORE_WEB_PORT", 8000),
            turn_addresses=self.addresses("MINDMORE_TURN_LISTEN_ADDRESS", ["127.0.0.1"]),
            turn_port=self.port("MINDMORE_TURN_PORT", 3478),
            turn_tls_port=self.port("MINDMORE_TURN_TLS_PORT", 5349) if certificate else None,
            metrics_port=self.count("MINDMORE_TURN_METRICS_PORT", 9641, maximum=PORT_MAX),
        )

    def certificate(self) -> tuple[Path | None, Path | None]:
        """The PEM files of the relay's certificate and its key; neither where TLS is off."""
        names = "MINDMORE_TURN_CERTIFICATE", "MINDMORE_TURN_CERTIFICATE_KEY"
        chain, key = (self.text(name, "") for name in names)
        if bool(chain) != bool(key):
            raise ImproperlyConfigured(f"set both of {names[0]} and {names[1]}, or none")
        return (Path(chain), Path(key)) if chain else (None, None)

    def production(self) -> bool:
        """Whether this installation is for the public."""
        return self.choice("MINDMORE_PROFILE", ("development", "production")) == "production"

    def demo(self) -> bool:
        """Whether there is a demo organisation: in production only where somebody asks for it."""
        default, other = ("off", "on") if self.production() else ("on", "off")
        return self.choice("MINDMORE_DEMO", (default, other)) == "on"

    def site_url(self) -> str:
        """What people type, without a slash at the end."""
        url = self.text("MINDMORE_SITE_URL", self.listeners().web_url).rstrip("/")
        try:
            parts = urlsplit(url)
            good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
            good = good and url in (f"{scheme}://{parts.netloc}" for scheme in WEB_SCHEMES)
        except ValueError:
            good = False
        if not good:
            raise ImproperlyConfigured(
                f"MINDMORE_SITE_URL is {shown(url)}: set it to https:// and a host name, as in "
                "https://turn.example.org"
            )
        return url

    def database_url(self) -> str:
        """Where PostgreSQL is; empty where nothing says so."""
        return self._url(
            "DATABASE_URL", DATABASE_SCHEMES, "postgresql://USER:PASSWORD@HOST:PORT/NAME"
        )

    def redis_url(self) -> str:
        """Where Valkey or Redis is; empty where nothing says so."""
        return self._url("REDIS_URL", REDIS_SCHEMES, "redis://HOST:PORT/0")

    def _url(self, name: str, schemes: Sequence[str], form: str) -> str:
        """An address; an error does not repeat it, as it may hold a password."""
        url = self.text(name, "")
        try:
            parts = urlsplit(url)
            good = parts.scheme in schemes and (parts.port is None or parts.port > 0)
        except ValueError:
            good = False
        if url and not good:
            raise ImproperlyConfigured(
                f"{name} is not of the form {form}: correct it, or unset it to use the server "
                "that comes with Mindmore"
            )
        return url

    def text(self, name: str, default: str) -> str:
        """The variable's value, or `default` where it is unset or empty."""
        return self.process.get(name) or self.files.get(name) or default

    def choice(self, name: str, options: Sequence[str]) -> str:
        """One of `options`, the first by default."""
        value = self.text(name, options[0])
        if value not in options:
            raise ImproperlyConfigured(
                f"{name} is {shown(value)}: set it to {' or '.join(options)}"
            )
        return value

    def words(self, name: str, default: list[str], *, divider: str = ",") -> list[str]:
        """A list, divided by commas or what is said; set but empty it is the empty list."""
        value = self.process.get(name, self.files.get(name))
        if value is None:
            return default
        return [word.strip() for word in value.split(divider) if word.strip()]

    def port(self, name: str, default: int) -> int:
        """A port number, 1 to 65535."""
        value = self.text(name, str(default))
        if not value.isdecimal() or not 0 < int(value) <= PORT_MAX:
            raise ImproperlyConfigured(
                f"{name} is {shown(value)}: set it to a port, 1 to {PORT_MAX}"
            )
        return int(value)

    def count(
        self, name: str, default: int, *, minimum: int = 0, maximum: int | None = None
    ) -> int:
        """A whole number from `minimum` on."""
        value = self.text(name, str(default))
        number = int(value) if value.isdecimal() and value.isascii() else -1
        if number < minimum or (maximum is not None and number > maximum):
            upper = " or more" if maximum is None else f" to {maximum}"
            raise ImproperlyConfigured(
                f"{name} is {shown(value)}: set it to a whole number, {minimum}{upper}"
            )
        return number

    def port_range(self, name: str, default: tuple[int, int]) -> tuple[int, int]:
        """Two ports joined by a hyphen, both included."""
        value = self.text(name, f"{default[0]}-{default[1]}")
        low, _, high = value.partition("-")
        if not (low.isdecimal() and high.isdecimal() and 0 < int(low) < int(high) <= PORT_MAX):
            raise ImproperlyConfigured(
                f"{name} is {shown(value)}: set it to LOW-HIGH, as in 49152-65535"
            )
        return int(low), int(high)

    def relay_ports(self, name: str, default: tuple[int, int]) -> tuple[int, int]:
        """A range of ports without those that belong to services."""
        low, high = self.port_range(name, default)
        if low < RELAY_PORT_MIN:
            raise ImproperlyConfigured(
                f"{name} begins at {low}: set it to ports from {RELAY_PORT_MIN} on, as in "
                "49152-65535"
            )
        return low, high

    def host(self, name: str, default: str) -> str:
        """A host name or an address, without scheme and port."""
        value = self.text(name, default)
        if not (is_address(value.strip("[]")) or is_host_name(value)):
            raise ImproperlyConfigured(
                f"{name} is {shown(value)}: set it to a host name or an address alone, as in "
                "turn.example.org"
            )
        return value

    def realm(self, name: str, default: str) -> str:
        """What a TURN server says of itself in its challenges."""
        value = self.text(name, default)
        if not REALM.fullmatch(value):
            raise ImproperlyConfigured(
                f"{name} is {shown(value)}: set it to at most 28 printable ASCII characters "
                "without quotation marks and backslashes, as in turn.example.org"
            )
        return value

    def node(self, name: str, default: str) -> str:
        """The name of a relay in usage records."""
        value = self.text(name, default)
        if not NODE.fullmatch(value):
            raise ImproperlyConfigured(
                f"{name} is {shown(value)}: set it to at most 64 letters, digits, dots, "
                "underscores and hyphens, as in node-1"
            )
        return value

    def mail_address(self, name: str, default: str) -> str:
        """A mail address, with or without a name before it."""
        value = self.text(name, default)
        if not MAIL_ADDRESS.fullmatch(parseaddr(value)[1]):
            raise ImproperlyConfigured(
                f"{name} holds no mail address: set it to one, as in "
                "'Mindmore <no-reply@example.org>'"
            )
        return value

    def address(self, name: str, default: str) -> str:
        """One IP address; `default`, which may be empty, where none is named."""
        values = self.addresses(name, [default] if default else [])
        if len(values) > 1:
            raise ImproperlyConfigured(f"{name} holds several addresses: set it to one of them")
        return values[0] if values else default

    def addresses(self, name: str, default: list[str]) -> tuple[str, ...]:
        """IP addresses, divided by commas; `default` where none is named."""
        values = self.words(name, default) or default
        for value in values:
            if not is_address(value):
                raise ImproperlyConfigured(
                    f"{name} holds {shown(value)}: set it to IP addresses, as in "
                    "192.0.2.1,2001:db8::1"
                )
        return tuple(values)

    def networks(self, name: str, default: list[str]) -> list[str]:
        """A list of networks, divided by commas."""
        values = self.words(name, default)
        for value in values:
            try:
                ip_network(value)
            except ValueError as error:
                raise ImproperlyConfigured(
                    f"{name}: {error}; write networks as in 192.0.2.0/24,2001:db8::/32"
                ) from error
        return values

    def secret(self, name: str) -> str:
        """A secret that has no default."""
        value = self.text(name, "")
        if not value:
            raise ImproperlyConfigured(
                f"{name} is not set: start once with `make run`, which generates it into "
                f"{self.home / 'env'}, or set it"
            )
        self._secret_check(name, value)
        return value

    def secrets(self, name: str) -> list[str]:
        """Comma-separated secrets, the current one first."""
        words = [word.strip() for word in self.secret(name).split(",") if word.strip()]
        for word in words or [""]:
            self._secret_check(name, word)
        return words

    def token_keys(self, name: str) -> list[tuple[str, str, bytes]]:
        """Keys of authorization servers: key id, project, and the key itself.

        An error does not repeat what it is about.
        """
        keys = [
            self._token_key(f"{name}, key {number},", word)
            for number, word in enumerate(self.words(name, []), start=1)
        ]
        if len({kid for kid, _, _ in keys}) < len(keys):
            raise ImproperlyConfigured(f"{name} holds two keys with one id: give each its own")
        return keys

    def _token_key(self, which: str, word: str) -> tuple[str, str, bytes]:
        kid, _, rest = word.partition(":")
        project, _, encoded = rest.partition(":")
        try:
            key = b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        if not encoded:
            wrong = "is not of the form KID:PROJECT:KEY: correct it, or take it out"
        elif not KID.fullmatch(kid):
            wrong = "has a wrong key id: set it to letters, digits and any of . _ + / = -"
        elif not PROJECT.fullmatch(project):
            wrong = "has a wrong project: set it to that of the payer, as in prj_abcdefgh2345"
        elif len(key) not in TOKEN_KEY_LENGTHS:
            wrong = "is not 32 bytes in Base64: make a key with `openssl rand -base64 32`"
        else:
            return kid, project, key
        raise ImproperlyConfigured(f"{which} {wrong}")

    def _secret_check(self, name: str, value: str) -> None:
        """Refuse what can be guessed, without repeating it."""
        if len(value) < SECRET_CHARACTERS_MIN:
            raise ImproperlyConfigured(
                f"{name} holds a secret of fewer than {SECRET_CHARACTERS_MIN} characters: make a "
                f"good one with `{SECRET_COMMAND}`"
            )


def bare_environment(*, default_home: Path) -> dict[str, str]:
    """What of the environment it takes to reach Valkey and the database, and no more.

    Lines of the files that cannot be read are left out. There is no home, so that nothing of the
    files is read again; secrets are made up, and good for nothing.
    """
    home = Path(os.environ.get("MINDMORE_HOME") or default_home).absolute()
    files: dict[str, str] = {}
    for name in (ADDRESSES_FILE, ENV_FILE):
        files |= read_env_lines(home / name)
    given = Environment(home=home, process=os.environ, files=files)
    names = {name: given.text(name, "") for name in ADDRESSES}
    secret = secrets.token_urlsafe(SECRET_CHARACTERS_MIN)
    return {"MINDMORE_HOME": os.devnull, **dict.fromkeys(SECRETS, secret), **names}


def given_names(default_home: Path) -> set[str]:
    """The names of all variables that people have set, in whatever way."""
    home = Path(os.environ.get("MINDMORE_HOME") or default_home).absolute()
    return {*os.environ, *read_env_lines(home / ENV_FILE)}


def read_env_lines(path: Path) -> dict[str, str]:
    """As `read_env_file`, without the lines that are not of the form; nothing where it fails."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    pairs = {}
    for line in lines:
        try:
            name, value = pair_read(line, where=str(path))
        except ImproperlyConfigured:
            continue
        pairs[name] = value
    return pairs


def read_env_file(path: Path) -> dict[str, str]:
    """The KEY=value lines of `path`; empty where there is no such file."""
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ImproperlyConfigured(
            f"cannot read {path} ({error.strerror}): set MINDMORE_HOME to a directory of this "
            "account's own"
        ) from error
    pairs = [
        pair_read(line_decode(line, where=where), where=where)
        for line, where in ((line, f"{path}, line {at}") for at, line in enumerate(lines, start=1))
        if line.strip() and not line.lstrip().startswith(b"#")
    ]
    return dict(pairs)


def line_decode(line: bytes, *, where: str) -> str:
    """The text of a line."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ImproperlyConfigured(
            f"{where} is not UTF-8: save the file as UTF-8, or put # before the line"
        ) from error


def pair_read(line: str, *, where: str) -> tuple[str, str]:
    """Name and value of one line; quotes around the whole value are not part of it.

    An error does not repeat the line, as it may hold a secret.
    """
    name, divider, value = line.partition("=")
    name, value = name.strip(), value.strip()
    if not divider or not VARIABLE.fullmatch(name):
        raise ImproperlyConfigured(
            f"{where} is not of the form NAME=value: correct it, or put # before it"
        )
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return name, value


def shown(value: str) -> str:
    """A value in quotes for an error message, of which it may not become the most."""
    end = "…" if len(value) > SHOWN_CHARACTERS_MAX else ""
    return repr(value[:SHOWN_CHARACTERS_MAX] + end)


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_host_name(text: str) -> bool:
    """Whether it is a name on a network; of digits and dots alone it is a mistyped address."""
    return bool(HOST_NAME.fullmatch(text)) and not re.fullmatch(r"[0-9.]+", text)
