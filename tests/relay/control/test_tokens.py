"""Access tokens (RFC 7635) are told of like the credentials that we mint, on real relays."""

from __future__ import annotations

from base64 import b64encode
from functools import partial

import pytest
from django.utils import timezone

from relay.core.access_tokens import token_credential
from relay.services.control import credential_limit, credential_revoke
from tests.relay.control.fleet import (
    QUOTA,
    REFUSED,
    Fleet,
    code_of,
    events,
    has_said,
    log_lines,
    refused,
    wait_until,
)
from tests.relay.interop.servers import Server
from tests.relay.tokens import KEY, MAC_KEY, SERVER_NAME, token_make
from tests.turn_client import Attribute, Message, TurnClient

pytestmark = [pytest.mark.xdist_group("fleet")]


class TokenCaller(TurnClient):
    """A client with a token, which goes with each of its requests."""

    def __init__(self, server: Server, token: bytes) -> None:
        super().__init__(server.address, KEY.kid)
        self.token = token

    def challenge_take(self, answer: Message) -> None:
        super().challenge_take(answer)
        self.key = MAC_KEY

    def credential_attributes(self) -> list[tuple[int, bytes]]:
        return [*super().credential_attributes(), (Attribute.ACCESS_TOKEN, self.token)]


def code(server: Server, token: bytes) -> int:
    """What a new allocation with a token is answered with; one that succeeds is given back."""
    with TokenCaller(server, token) as client:
        answered = code_of(client.allocate)
        if answered == 0:
            client.refresh(0)
        return answered


def test_key_of_a_project_that_does_not_exist_is_named_once_the_database_answers(
    fleet: Fleet,
) -> None:
    key, other = (b64encode(bytes([number]) * 32).decode() for number in range(2))
    fleet.database.shut()
    fleet.start(
        OAUTH_KEYS=f"good:{fleet.project.public_id}:{key},lost:prj_nobodynobody:{other}",
        PROCESSES=2,
        MOBILITY="off",
        CUT_OFF_SECONDS=0,
    )
    for server in fleet.relays.values():
        wait_until(partial(has_said, server, "control_lost"))
        assert not has_said(server, "token_project_unknown")
    fleet.database.open()
    for server in fleet.relays.values():
        wait_until(partial(has_said, server, "token_project_unknown"))
        wait_until(partial(both_have_their_snapshot, server))
        [line] = [line for line in log_lines(server) if line["event"] == "token_project_unknown"]
        assert (line["level"], line["kid"]) == ("warning", "lost")
        assert line["project"] == "prj_nobodynobody"


def both_have_their_snapshot(server: Server) -> bool:
    return events(server).count("control_snapshot") >= 2


def test_access_token_is_limited_and_revoked_by_its_id_on_every_relay(fleet: Fleet) -> None:
    key = b64encode(KEY.key).decode()
    fleet.start(
        OAUTH_KEYS=f"{KEY.kid}:{fleet.project.public_id}:{key}", OAUTH_SERVER_NAME=SERVER_NAME
    )
    fleet.started()
    now = timezone.now().timestamp()
    token, other = token_make(now), token_make(now)
    credential = token_credential(token)
    servers = list(fleet.relays.values())

    def everywhere(asked: int) -> bool:
        return all(code(server, token) == asked for server in servers)

    credential_limit(
        project=fleet.project, credential=credential, allocations_max=0, now=timezone.now()
    )
    wait_until(partial(everywhere, QUOTA))
    credential_limit(project=fleet.project, credential=credential, now=timezone.now())
    wait_until(partial(everywhere, 0))
    with TokenCaller(servers[0], token) as client:
        client.allocate()
        credential_revoke(project=fleet.project, credential=credential, now=timezone.now())
        wait_until(partial(refused, client))
    wait_until(partial(everywhere, REFUSED))
    assert [code(server, other) for server in servers] == [0, 0]
