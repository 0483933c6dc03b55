"""Settings from the environment: what is taken from where, and what a wrong value says."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from mindmore.environment import Environment, read_env_file
from mindmore.variables import NAMES, unknown_warnings


def environment(
    process: dict[str, str] | None = None, files: dict[str, str] | None = None
) -> Environment:
    return Environment(home=Path("/nowhere"), process=process or {}, files=files or {})


def test_process_environment_wins_over_the_file() -> None:
    env = environment({"NAME": "process"}, {"NAME": "file"})
    assert env.text("NAME", "default") == "process"


def test_file_answers_what_the_process_environment_leaves_empty() -> None:
    assert environment({"NAME": ""}, {"NAME": "file"}).text("NAME", "default") == "file"


def test_nothing_set_gives_the_default() -> None:
    assert environment().text("NAME", "default") == "default"


def test_people_win_over_the_addresses_of_own_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "addresses").write_text("REDIS_URL=unix:///own\nDATABASE_URL=postgresql:///own\n")
    (tmp_path / "env").write_text("REDIS_URL=redis://theirs/0\n")
    monkeypatch.setenv("MINDMORE_HOME", str(tmp_path))
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.delenv("DATABASE_URL")
    env = Environment.load(default_home=Path("/nowhere"))
    assert env.redis_url() == "redis://theirs/0"
    assert env.database_url() == "postgresql:///own"
    assert Environment.load_given(default_home=Path("/nowhere")).database_url() == ""


def test_env_file_may_hold_comments_and_equals_signs(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# a comment\n\nNAME=a=b\n")
    assert read_env_file(tmp_path / "env") == {"NAME": "a=b"}


def test_missing_env_file_is_empty(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / "missing" / "env") == {}


@pytest.mark.parametrize("value", ["0", "65536", "-1", "http", "80.0", "²"])
def test_wrong_port_is_refused_by_name(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="MINDMORE_WEB_PORT"):
        environment({"MINDMORE_WEB_PORT": value}).listeners()


@pytest.mark.parametrize(
    "url",
    [
        "turn.example.org",
        "//turn.example.org",
        "https://",
        "ftp://h",
        "https://h:port",
        "https://h/x",
    ],
)
def test_site_url_that_no_browser_opens_is_refused(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="MINDMORE_SITE_URL is"):
        environment({"MINDMORE_SITE_URL": url}).site_url()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://turn.example.org/", "https://turn.example.org"),
        ("http://[2001:db8::1]:8000", "http://[2001:db8::1]:8000"),
        ("", "http://localhost:8000"),
    ],
)
def test_site_url_has_no_slash_at_its_end(given: str, url: str) -> None:
    assert environment({"MINDMORE_SITE_URL": given}).site_url() == url


@pytest.mark.parametrize(
    ("profile", "demo", "made"),
    [
        ("", "", True),
        ("", "off", False),
        ("production", "", False),
        ("production", "on", True),
    ],
)
def test_demo_is_made_unless_the_installation_is_for_the_public(
    profile: str, demo: str, *, made: bool
) -> None:
    env = environment({"MINDMORE_PROFILE": profile, "MINDMORE_DEMO": demo})
    assert env.demo() is made


@pytest.mark.parametrize("value", ["49152", "2-1", "0-5", "1-65536", "a-b", "1-2-3"])
def test_wrong_range_of_ports_is_refused_by_name(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="PORTS"):
        environment({"PORTS": value}).port_range("PORTS", (1, 2))


def test_unknown_choice_names_the_choices() -> None:
    with pytest.raises(ImproperlyConfigured, match="on or off"):
        environment({"SWITCH": "perhaps"}).choice("SWITCH", ("on", "off"))


def test_list_that_is_set_but_empty_is_empty() -> None:
    assert environment({"WORDS": ""}).words("WORDS", ["default"]) == []
    assert environment().words("WORDS", ["default"]) == ["default"]
    assert environment({"WORDS": " a, b ,"}).words("WORDS", []) == ["a", "b"]


def test_missing_secret_says_how_to_get_one() -> None:
    with pytest.raises(ImproperlyConfigured, match="make run"):
        environment().secret("MINDMORE_SECRET_KEY")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h:5432/n",
        "postgres://h/n",
        "postgresql:///n",
        "postgresql://u@%2Frun%2Fx/n",
        "",
    ],
)
def test_database_url_of_postgresql_is_taken(url: str) -> None:
    assert environment({"DATABASE_URL": url}).database_url() == url


@pytest.mark.parametrize(
    "url", ["sqlite:///hidden", "mysql://hidden/n", "postgresql://hidden:port/n", "hidden"]
)
def test_other_database_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL") as refusal:
        environment({"DATABASE_URL": url}).database_url()
    assert "hidden" not in str(refusal.value)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://localhost:8000"),
        ("0.0.0.0", "http://localhost:8000"),
        ("::1", "http://localhost:8000"),
        ("192.0.2.1", "http://192.0.2.1:8000"),
        ("2001:db8::1", "http://[2001:db8::1]:8000"),
    ],
)
def test_web_address_is_one_that_a_browser_here_can_open(host: str, url: str) -> None:
    assert environment({"MINDMORE_WEB_HOST": host}).listeners().web_url == url


@pytest.mark.parametrize("value", ["hidden", f"{'s' * 48},hidden", ",", "s" * 31])
def test_weak_secret_is_refused_with_a_command_for_a_good_one(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="MINDMORE_TURN_SECRETS") as refusal:
        environment({"MINDMORE_TURN_SECRETS": value}).secrets("MINDMORE_TURN_SECRETS")
    assert "secrets.token_urlsafe(48)" in str(refusal.value)
    assert "hidden" not in str(refusal.value)


def test_several_good_secrets_are_taken_in_order() -> None:
    new, old = "n" * 32, "o" * 64
    assert environment({"KEYS": f"{new}, {old},"}).secrets("KEYS") == [new, old]


TOKEN_KEY = b64encode(b"k" * 32).decode()


def test_keys_of_authorization_servers_are_taken_in_order() -> None:
    short = b64encode(b"s" * 16).decode()
    given = f"22B+jxU93h/IgwE=:prj_aaaaaaaaaaaa:{TOKEN_KEY}, old.1:prj_bbbbbbbbbbbb:{short}"
    assert environment({"KEYS": given}).token_keys("KEYS") == [
        ("22B+jxU93h/IgwE=", "prj_aaaaaaaaaaaa", b"k" * 32),
        ("old.1", "prj_bbbbbbbbbbbb", b"s" * 16),
    ]
    assert environment().token_keys("KEYS") == []


@pytest.mark.parametrize(
    "value",
    [
        TOKEN_KEY,
        f"prj_aaaaaaaaaaaa:{TOKEN_KEY}",
        f"a kid:prj_aaaaaaaaaaaa:{TOKEN_KEY}",
        f":prj_aaaaaaaaaaaa:{TOKEN_KEY}",
        f"{'k' * 65}:prj_aaaaaaaaaaaa:{TOKEN_KEY}",
        f"kid:prj_a:{TOKEN_KEY}",
        f"kid:prj_aaaaaaaaaaaa:{TOKEN_KEY[:-4]}",
        f"kid:prj_aaaaaaaaaaaa:{TOKEN_KEY[:-1]}",
        f"kid:prj_aaaaaaaaaaaa:*{TOKEN_KEY}",
        f"kid:prj_aaaaaaaaaaaa:{b64encode(b'k' * 24).decode()}",  # AES-192
        f"kid:prj_aaaaaaaaaaaa:{b64encode(b'k' * 64).decode()}",  # A256CBC-HS512
        f"kid:prj_aaaaaaaaaaaa:{TOKEN_KEY},kid:prj_bbbbbbbbbbbb:{TOKEN_KEY}",
    ],
)
def test_wrong_key_of_an_authorization_server_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"^KEYS") as refusal:
        environment({"KEYS": value}).token_keys("KEYS")
    assert TOKEN_KEY[:8] not in str(refusal.value)


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        (TOKEN_KEY, "KID:PROJECT:KEY"),
        (f"a kid:prj_aaaaaaaaaaaa:{TOKEN_KEY}", "key id"),
        (f"kid:prj_a:{TOKEN_KEY}", "project"),
        ("kid:prj_aaaaaaaaaaaa:abc", "openssl rand"),
    ],
)
def test_wrong_part_of_a_token_key_is_named_with_its_place(word: str, wrong: str) -> None:
    keys = f"good:prj_aaaaaaaaaaaa:{TOKEN_KEY},{word}"
    with pytest.raises(ImproperlyConfigured, match=rf"^KEYS, key 2, .*{wrong}") as refusal:
        environment({"KEYS": keys}).token_keys("KEYS")
    advice_of_a_key = "openssl rand" in str(refusal.value)
    assert advice_of_a_key == (wrong == "openssl rand")


def test_long_value_is_not_repeated_in_whole() -> None:
    values = {"NAME": "a" * 900}
    for read in (environment(values).host, environment(values).node):
        with pytest.raises(ImproperlyConfigured, match=r"^NAME is 'aaa.*…'") as refusal:
            read("NAME", "")
        assert len(str(refusal.value)) < 250


def test_line_of_the_env_file_without_a_name_is_named_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("NAME=a\nhidden\n")
    with pytest.raises(ImproperlyConfigured, match="line 2 is") as refusal:
        read_env_file(tmp_path / "env")
    assert "hidden" not in str(refusal.value)


def test_line_of_the_env_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes("# Zürich\nNAME=Zürich\n".encode("latin-1"))
    with pytest.raises(ImproperlyConfigured, match=f"{tmp_path / 'env'}, line 2 is not UTF-8"):
        read_env_file(tmp_path / "env")


@pytest.mark.parametrize(
    ("line", "value"),
    [('N="a b"', "a b"), ("N='a'", "a"), ('N="', '"'), ('N=a"b"', 'a"b"'), (" N = a ", "a")],
)
def test_quotes_around_a_value_are_not_part_of_it(tmp_path: Path, line: str, value: str) -> None:
    (tmp_path / "env").write_text(line)
    assert read_env_file(tmp_path / "env") == {"N": value}


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda env: env.host("X", ""), "turn:turn.example.org"),
        (lambda env: env.host("X", ""), "turn.example.org:3478"),
        (lambda env: env.host("X", ""), "192.0.2.256"),
        (lambda env: env.host("X", ""), "two words"),
        (lambda env: env.node("X", ""), "../node"),
        (lambda env: env.realm("X", ""), 'the "realm"'),
        (lambda env: env.realm("X", ""), "back\\slash"),
        (lambda env: env.realm("X", ""), "z\u00fcrich"),
        (lambda env: env.realm("X", ""), " spaced"),
        (lambda env: env.realm("X", ""), "r" * 29),
        (lambda env: env.mail_address("X", ""), "Mindmore"),
        (lambda env: env.relay_ports("X", (1, 2)), "80-2000"),
        (lambda env: env.addresses("X", []), "192.0.2.1,somewhere"),
        (lambda env: env.networks("X", []), "192.0.2.1/24"),
        (lambda env: env.count("X", 1, minimum=1), "0"),
        (lambda env: env.count("X", 1, maximum=64), "65"),
    ],
)
def test_wrong_value_is_refused_by_the_name_of_its_variable(
    read: Callable[[Environment], object], value: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"^X"):
        read(environment({"X": value}))


@pytest.mark.parametrize("realm", ["turn", "turn.example.org", "Zoe's TURN, 2", "r" * 28])
def test_realm_is_printable_ascii(realm: str) -> None:
    assert environment({"X": realm}).realm("X", "") == realm


@pytest.mark.parametrize("host", ["turn.example.org", "turn.example.org.", "192.0.2.1", "::1", "a"])
def test_host_name_and_address_are_hosts(host: str) -> None:
    assert environment({"X": host}).host("X", "") == host


def test_every_variable_of_the_readme_is_known_and_no_other() -> None:
    readme = Path(__file__).resolve().parents[2] / "README.md"
    table = re.findall(r"^\| `(MINDMORE_\w+)`", readme.read_text(), re.MULTILINE)
    assert set(table) == NAMES


def test_unknown_variable_is_warned_of_with_the_nearest_name() -> None:
    assert unknown_warnings(["MINDMORE_TURN_PORT", "HOME", "MINDMORE_READY_FD"]) == []
    [near, far] = unknown_warnings(["MINDMORE_TURN_PROT", "MINDMORE_XYZ"])
    assert near.endswith("did you mean MINDMORE_TURN_PORT?")
    assert far.endswith("it changes nothing")
