"""POST /api/v1/credentials, as its description and the product's says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
import time_machine
import webrtc
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from accounts.services import api_key_create, api_key_revoke, project_create
from relay.control.keys import ANNOUNCED, FIELD, STREAM
from relay.control.messages import UsernameAnnounce, message_decode
from relay.core.credentials import password_derive, username_parse
from relay.publishing import valkey
from tests.relay.api.client import Answer, Api, Customer

NOW = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)
DAY_SECONDS = 24 * 3600


@pytest.fixture
def noon() -> Iterator[datetime]:
    with time_machine.travel(NOW, tick=False):
        yield NOW


def test_credential_has_all_its_members(api: Api, noon: datetime, settings: Settings) -> None:
    settings.TURN_HOST, settings.TURN_PORT = "turn.example.org", 3478
    answer = api.mint(ttl=600, label="room 7")
    assert answer.status == 201
    credential = answer.json
    assert credential == {
        "id": credential["id"],
        "iceServers": [
            {"urls": ["stun:turn.example.org:3478"]},
            {
                "urls": [
                    "turn:turn.example.org:3478?transport=udp",
                    "turn:turn.example.org:3478?transport=tcp",
                ],
                "username": credential["username"],
                "credential": credential["credential"],
            },
        ],
        "username": credential["username"],
        "credential": credential["credential"],
        "ttl": 600,
        "expires_at": "2026-05-17T12:10:00Z",
        "label": "room 7",
        "region": None,
    }


@pytest.mark.parametrize(
    "member", ["custom_identifier", "region", "url_profile", "max_bytes", "on_expiry"]
)
def test_member_that_does_nothing_yet_is_refused(api: Api, member: str) -> None:
    answer = api.mint(**{member: "x"})
    assert answer.status == 422
    assert answer.json["errors"] == [
        {"pointer": f"#/{member}", "detail": "there is no such member"}
    ]


@pytest.mark.usefixtures("valkey_apart")
def test_username_is_announced_to_the_relays_only_where_that_is_asked_for(api: Api) -> None:
    plain, open_, hidden = api.mint(), api.mint(userhash=False), api.mint(ttl=600, userhash=True)
    assert [answer.status for answer in (plain, open_, hidden)] == [201] * 3
    username = hidden.json["username"]
    ends = datetime.fromisoformat(hidden.json["expires_at"]).timestamp()
    announced = valkey().zrange(ANNOUNCED, 0, -1, withscores=True)
    assert announced == [(username.encode(), ends)]
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", valkey().xrange(STREAM))
    messages = [message_decode(entry[FIELD]).message for _, entry in entries]
    assert messages == [UsernameAnnounce(username, ends)]


@pytest.mark.parametrize("value", ["yes", "true", 1, None])
def test_userhash_is_true_or_false(api: Api, value: object) -> None:
    answer = api.mint(userhash=value)
    assert answer.status == 422
    assert [error["pointer"] for error in answer.json["errors"]] == ["#/userhash"]


def test_username_that_no_relay_can_be_told_is_not_given_out(api: Api, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    valkey.cache_clear()
    try:
        answer = api.mint(userhash=True)
        assert answer.status == 503
        assert "username" not in answer.json
        assert answer.headers["retry-after"] == "1"
        assert api.mint().status == 201
    finally:
        valkey.cache_clear()


@pytest.mark.usefixtures("valkey_apart")
def test_project_with_too_many_usernames_announced_is_told_what_to_do(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.publishing.ANNOUNCED_PER_PROJECT_MAX", 1)
    assert api.mint(userhash=True).status == 201
    refused = api.mint(userhash=True)
    assert refused.status == 429
    assert "username" not in refused.json
    assert "`ttl`" in refused.json["detail"]
    assert api.mint().status == 201


def test_request_that_is_sent_again_gives_another_credential(api: Api) -> None:
    again = {"Idempotency-Key": "the same"}
    first, second = (api.send(b'{"ttl": 600}', headers=again) for _ in range(2))
    assert first.status == second.status == 201
    assert first.json["id"] != second.json["id"]


def test_username_says_when_it_ends_and_whose_it_is(
    api: Api, customer: Customer, noon: datetime
) -> None:
    credential = api.mint(ttl=600, label="room 7").json
    parsed = username_parse(credential["username"])
    assert parsed is not None
    assert parsed.expires_at == int((noon + timedelta(seconds=600)).timestamp())
    assert parsed.project == customer.project.public_id
    assert parsed.credential == credential["id"]
    assert parsed.label == "room 7"


def test_password_is_made_from_the_first_secret(api: Api, settings: Settings) -> None:
    settings.TURN_SECRETS = ["current", "previous"]
    credential = api.mint().json
    assert credential["credential"] == password_derive(b"current", credential["username"])


def test_longest_label_makes_a_username_that_the_relay_takes(api: Api) -> None:
    credential = api.mint(label="x" * 64).json
    assert len(credential["username"].encode()) <= 508


def test_two_credentials_differ(api: Api) -> None:
    first, second = api.mint().json, api.mint().json
    assert first["id"] != second["id"]
    assert first["credential"] != second["credential"]


def test_body_may_be_empty_or_left_out(api: Api) -> None:
    for data, content_type in ((b"", "application/json"), (b"", ""), (b"{}", "application/json")):
        answer = api.send(data, content_type=content_type)
        assert answer.status == 201
        assert answer.json["ttl"] == DAY_SECONDS
        assert answer.json["label"] is None


def test_default_ttl_stays_under_the_projects_ceiling(api: Api, customer: Customer) -> None:
    customer.project.credential_ttl_seconds_max = 300
    customer.project.save()
    assert api.mint().json["ttl"] == 300


@pytest.mark.parametrize("ttl", [60, 61, 30 * DAY_SECONDS, 3600.0])
def test_ttl_within_the_limits_is_given(api: Api, ttl: float) -> None:
    assert api.mint(ttl=ttl).json["ttl"] == ttl


@pytest.mark.parametrize("ttl", [59, 0, -1, 30 * DAY_SECONDS + 1, 1e20, 10**30, int("9" * 4080)])
def test_ttl_out_of_range_is_refused_and_the_limit_named(api: Api, ttl: float) -> None:
    answer = api.mint(ttl=ttl)
    assert answer.status == 422
    assert answer.json["limit"] == {
        "name": "ttl",
        "unit": "seconds",
        "minimum": 60,
        "maximum": 30 * DAY_SECONDS,
    }
    assert "60 to 2592000 seconds" in answer.json["detail"]
    assert len(answer.body) < 1000


def test_ceiling_of_the_project_is_the_limit_that_is_named(api: Api, customer: Customer) -> None:
    customer.project.credential_ttl_seconds_max = 300
    customer.project.save()
    assert api.mint(ttl=300).status == 201
    answer = api.mint(ttl=301)
    assert answer.status == 422
    assert answer.json["limit"]["maximum"] == 300


@pytest.mark.parametrize("ttl", [True, "60", "", 60.5, [], {}])
def test_ttl_that_is_no_number_of_seconds_is_refused(api: Api, ttl: object) -> None:
    answer = api.mint(ttl=ttl)
    assert answer.status == 422
    assert answer.json["errors"][0]["pointer"] == "#/ttl"


@pytest.mark.parametrize(
    "label", ["", " ", "   ", "x" * 65, "Zürich", "a\nb", "a\x00", "a\x7f", "tab\t"]
)
def test_label_that_no_username_can_carry_is_refused(api: Api, label: str) -> None:
    answer = api.mint(label=label)
    assert answer.status == 422
    assert answer.json["limit"] == {
        "name": "label",
        "unit": "characters",
        "minimum": 1,
        "maximum": 64,
    }


def test_unknown_member_is_refused_by_name(api: Api) -> None:
    answer = api.mint(ttl=600, region="eu", **{"a/b~c ü": 1})
    assert answer.status == 422
    assert answer.json["errors"] == [
        {"pointer": "#/region", "detail": "there is no such member"},
        {"pointer": "#/a~1b~0c%20%C3%BC", "detail": "there is no such member"},
    ]


@pytest.mark.parametrize("data", [b"[]", b"1", b'"ttl"', b"null", b"true"])
def test_body_that_is_no_object_is_refused(api: Api, data: bytes) -> None:
    answer = api.send(data)
    assert answer.status == 422
    assert answer.json["errors"][0]["pointer"] == "#"
    assert answer.json["detail"] == "The body must be a JSON object."


def test_null_is_the_same_as_left_out(api: Api) -> None:
    answer = api.mint(ttl=None, label=None)
    assert answer.status == 201
    assert answer.json["ttl"] == DAY_SECONDS
    assert answer.json["label"] is None


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"\xff\xfe",
        b'{"ttl": NaN}',
        b'{"ttl": 60, "ttl": 61}',
        b"[" * 4000,
        b"\xef\xbb\xbf{}",
        b'{"\\ud800": 1}',
    ],
)
def test_malformed_json_is_a_bad_request(api: Api, data: bytes) -> None:
    assert api.send(data).status == 400


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b'{"ttl":\n x}', "at line 2, column 2."),
        (b'{"ttl": 60, "ttl": 61}', 'The body says the member "ttl" twice.'),
        (b'{"ttl": NaN}', "it has no NaN."),
        (b"[" * 4000, "nested too deeply."),
        (b"{}\xff", "not UTF-8: see its byte 2."),
        (b'{"\\ud800": 1}', "not Unicode text."),
    ],
)
def test_malformed_json_is_told_what_is_wrong(api: Api, data: bytes, detail: str) -> None:
    assert api.send(data).json["detail"].endswith(detail)


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("br", 415), ("Identity", 201)])
def test_compressed_body_is_refused_as_such(api: Api, encoding: str, status: int) -> None:
    answer = api.send(b"{}", headers={"content-encoding": encoding})
    assert answer.status == status
    if status == 415:
        assert "compressed" in answer.json["detail"]


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
def test_other_media_types_are_refused(api: Api, content_type: str) -> None:
    assert api.send(b"{}", content_type=content_type).status == 415


def test_media_type_may_name_its_charset(api: Api) -> None:
    assert api.send(b"{}", content_type="Application/JSON; charset=utf-8").status == 201


@pytest.mark.parametrize("size", [4097, 3_000_000])
def test_body_too_large_is_refused_and_the_limit_named(api: Api, size: int) -> None:
    answer = api.send(b" " * size)
    assert answer.status == 413
    assert answer.json["limit"] == {"name": "body", "unit": "bytes", "maximum": 4096}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_told_which_one_there_is(api: Api, method: str) -> None:
    answer = api.send(method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/api/v1/", "/api/v1/nothing", "/api/v1/credentials/"])
def test_other_addresses_are_problem_documents_too(api: Api, path: str) -> None:
    assert api.send(path=path, method="GET").status == 404


def test_every_wrong_key_gets_the_same_answer(api: Api, customer: Customer) -> None:
    _, other_key = api_key_create(project=customer.project, name="another")
    revoked, revoked_key = api_key_create(project=customer.project, name="old")
    api_key_revoke(api_key=revoked)
    answers: list[Answer] = [
        api.send(key=revoked_key),
        api.send(key=customer.key[:-1] + ("A" if customer.key[-1] != "A" else "B")),
        api.send(key=customer.key[:11] + other_key[11:]),
        api.send(key="mm_aaaaaaaa_" + "A" * 43),
        api.send(key="nonsense"),
        api.send(key=" " + customer.key),
        api.send(headers={"authorization": ""}),
        api.send(headers={"authorization": customer.key}),
        api.send(headers={"authorization": f"Basic {customer.key}"}),
        api.send(headers={"authorization": f"Bearer {customer.key}, Bearer {customer.key}"}),
        api.send(path=f"/api/v1/credentials?api_key={customer.key}", key=""),
        api.send(b"not JSON", key="nonsense", content_type="text/plain"),
    ]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert len({tuple(sorted(answer.headers.items())) for answer in answers}) == 1
    assert answers[0].headers["www-authenticate"] == 'Bearer realm="mindmore"'


def test_revoked_key_is_refused_at_once(api: Api, customer: Customer) -> None:
    assert api.mint().status == 201
    api_key_revoke(api_key=customer.api_key)
    assert api.mint().status == 401


def test_scheme_is_read_in_any_case(api: Api, customer: Customer) -> None:
    assert api.send(headers={"authorization": f"bearer {customer.key}"}).status == 201


@pytest.mark.parametrize("query", ["ttl=60", "api_key=x", "x"])
def test_query_is_refused_even_beside_a_live_key(api: Api, query: str) -> None:
    answer = api.send(path=f"/api/v1/credentials?{query}")
    assert answer.status == 400
    assert "Authorization header" in answer.json["detail"]


def test_key_mints_for_its_own_project_only(api: Api, customer: Customer) -> None:
    project = project_create(organisation=customer.project.organisation, name="Other")
    _, key = api_key_create(project=project, name="server")
    parsed = username_parse(api.send(key=key).json["username"])
    assert parsed is not None
    assert parsed.project == project.public_id


def test_minting_is_one_read_and_no_write(api: Api) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert api.mint().status == 201
    assert len(queries) == 1
    assert queries[0]["sql"].startswith("SELECT")


def test_minting_needs_no_csrf_token(api: Api) -> None:
    api.client.handler.enforce_csrf_checks = True
    assert api.mint().status == 201


def test_ipv6_address_stands_in_brackets(api: Api, settings: Settings) -> None:
    settings.TURN_HOST, settings.TURN_PORT = "2001:db8::1", 3479
    servers = api.mint().json["iceServers"]
    assert servers[0]["urls"] == ["stun:[2001:db8::1]:3479"]
    assert servers[1]["urls"] == [
        "turn:[2001:db8::1]:3479?transport=udp",
        "turn:[2001:db8::1]:3479?transport=tcp",
    ]


def test_server_with_a_certificate_is_named_by_three_addresses(
    api: Api, settings: Settings
) -> None:
    settings.TURN_TLS_PORT = 5349
    answer = api.mint().json
    assert answer["iceServers"] == [
        {"urls": ["stun:127.0.0.1:3478"]},
        {
            "urls": [
                "turn:127.0.0.1:3478?transport=udp",
                "turns:127.0.0.1:5349?transport=tcp",
            ],
            "username": answer["username"],
            "credential": answer["credential"],
        },
    ]
    servers = [RTCIceServer(**each) for each in answer["iceServers"]]
    assert servers[1].urls == answer["iceServers"][1]["urls"]
    assert len(webrtc.RTCConfiguration.from_json(answer).ice_servers) == 2


def test_aiortc_takes_the_servers_as_they_are(api: Api) -> None:
    servers = [RTCIceServer(**each) for each in api.mint().json["iceServers"]]

    async def connect() -> None:
        await RTCPeerConnection(RTCConfiguration(iceServers=servers)).close()

    asyncio.run(connect())


def test_libwebrtc_takes_the_whole_answer_as_its_configuration(api: Api) -> None:
    configuration = webrtc.RTCConfiguration.from_json(api.mint().json)

    async def connect() -> None:
        peer = webrtc.RTCPeerConnection(configuration)
        assert len(peer.get_configuration().ice_servers) == 2
        peer.close()

    asyncio.run(connect())
