"""What holds data back: the bitrate and "media only"."""

from __future__ import annotations

from math import inf

import pytest

from relay.core.gate import BITRATE, MEDIA_FIRST_BYTES, NOT_MEDIA, Gate, Passage
from relay.core.limits import ProjectLimits
from tests.relay.fake_link import PEER, World, credential_make, settings_make

CHANNEL = 0x4000


@pytest.mark.parametrize("bitrate_bps", [64_000, 500_000, 2_000_000])
@pytest.mark.parametrize("size", [160, 1200])
@pytest.mark.parametrize("offered", [1.0, 1.5, 10.0])
def test_rate_holds_within_five_percent_over_five_seconds(
    bitrate_bps: int, size: int, offered: float
) -> None:
    passage = Passage(bitrate_bps / 8, False, 0.0)
    interval = size * 8 / (bitrate_bps * offered)
    refusals = (
        passage.refusal(b"\0", 0, size, step * interval) for step in range(int(5 / interval))
    )
    passed = sum(size for refusal in refusals if refusal is None)
    assert passed * 8 / 5 == pytest.approx(bitrate_bps, rel=0.05)


def test_what_stays_below_the_rate_is_never_dropped() -> None:
    passage = Passage(100_000, False, 0.0)
    for step in range(4000):  # 96 000 bytes a second
        assert passage.refusal(b"\0", 0, 1200, step * 0.0125) is None


def test_pause_saves_up_a_tenth_of_a_second_and_no_more() -> None:
    passage = Passage(100_000, False, 0.0)
    refusals = [passage.refusal(b"\0", 0, 1000, 3600.0) for _ in range(100)]
    assert refusals == [None] * 10 + [BITRATE] * 90


@pytest.mark.parametrize(
    ("first_byte", "passes"),
    [
        *((0, True), (3, True), (4, False), (19, False)),  # STUN, nobody's
        *((20, True), (63, True), (64, True), (79, True)),  # DTLS, channels
        *((80, False), (127, False), (128, True), (191, True)),  # nobody's, RTP and RTCP
        *((192, False), (0xC3, False), (255, False), (-1, False)),  # QUIC's long headers; nothing
    ],
)
def test_media_only_passes_what_rfc_7983_names(first_byte: int, passes: bool) -> None:
    gate = Gate(None, True, 0.0)
    for passage in (gate.from_client, gate.from_peer):
        data = b"??" + bytes([first_byte]) * 1200 if first_byte >= 0 else b"??"
        refusal = passage.refusal(data, 2, len(data) - 2, 0.0)
        assert refusal == (None if passes else NOT_MEDIA)


def test_stream_rests_until_its_debt_is_paid() -> None:
    gate, now, carried = Gate(8_000_000, False, 0.0), 0.0, 0
    while now < 5.0:
        now += gate.from_client.rest(65536, now)
        carried += 65536
    assert carried / now == pytest.approx(1_000_000, rel=0.05)
    assert gate.from_peer.rest(1000, now) == 0.0
    assert Gate(None, True, 0.0).from_client.rest(1 << 30, 0.0) == 0.0


def test_stream_whose_rate_is_nothing_rests_for_good() -> None:
    gate = Gate(0, False, 0.0)
    for passage in (gate.from_client, gate.from_peer):
        assert passage.rest(1000, 0.0) == inf
        assert passage.rest(1000, 1e9) == inf


def test_media_first_bytes_are_those_of_the_rfc() -> None:
    assert len(MEDIA_FIRST_BYTES) == 4 + 60 + 64


def test_each_direction_has_the_whole_rate() -> None:
    gate = Gate(8000, False, 0.0)
    assert gate.from_client.refusal(b"\0", 0, 1000, 0.0) is None
    assert gate.from_client.refusal(b"\0", 0, 1000, 0.0) == BITRATE
    assert gate.from_peer.refusal(b"\0", 0, 1000, 0.0) is None


# --- through the server ---------------------------------------------------------------------------


def world_with(limits: ProjectLimits) -> World:
    return World(settings_make(project_limits=limits))


@pytest.mark.parametrize("bound", [False, True])
def test_bitrate_drops_in_both_directions_and_counts_nothing_that_it_dropped(bound: bool) -> None:
    world = world_with(ProjectLimits(bitrate_bps_max=80_000))
    client = world.client()
    port = client.port()
    client.permit(PEER)
    if bound:
        client.bind(CHANNEL, PEER)
    allocation = world.started[0]
    received_before = allocation.client_received_bytes
    for _ in range(500):
        world.now += 0.01
        if bound:
            client.send_channel(CHANNEL, bytes(1000))
        else:
            client.send(PEER, bytes(1000))
        world.from_peer(port, PEER, bytes(1000))
    up = sum(len(data) for _, _, data in world.to_peers)
    assert up * 8 / 5 == pytest.approx(80_000, rel=0.05)
    assert allocation.peer_sent_bytes == up
    assert allocation.peer_received_bytes * 8 / 5 == pytest.approx(80_000, rel=0.05)
    framing = 4 if bound else 36
    assert allocation.client_received_bytes - received_before == up + framing * len(world.to_peers)
    assert world.turn.dropped["bitrate"] > 800
    assert client.refresh(600) == 600  # nobody was disconnected


@pytest.mark.parametrize("bound", [False, True])
def test_media_only_drops_a_quic_handshake_both_ways_and_flags_the_project(bound: bool) -> None:
    world = world_with(ProjectLimits(media_only=True))
    client = world.client()
    port = client.port()
    client.permit(PEER)
    if bound:
        client.bind(CHANNEL, PEER)
    for data in (b"\xc3quic initial", b"", b"\x80rtp", b"\x16dtls", b"\x00\x01stun"):
        if bound:
            client.send_channel(CHANNEL, data)
        else:
            client.send(PEER, data)
        world.from_peer(port, PEER, data)
    media = [b"\x80rtp", b"\x16dtls", b"\x00\x01stun"]
    assert [data for _, _, data in world.to_peers] == media
    assert [client.receive()[1] for _ in media] == media
    assert world.turn.guard.flagged == {"prj_a": 4}


def test_projects_flagged_are_bounded() -> None:
    limits = ProjectLimits(media_only=True)
    world = World(settings_make(project_limits=limits, projects_max=1))
    for number, project in enumerate(("prj_a", "prj_b", "prj_c")):
        client = world.client(
            ("192.0.2.7", 1000 + number), credential_make(world.now, project=project)
        )
        client.allocate()
        client.bind(CHANNEL, PEER)
        client.send_channel(CHANNEL, b"\xc3")
    assert world.turn.guard.flagged == {"prj_a": 1, "": 2}


def test_allocation_without_such_limits_has_no_gate() -> None:
    world = world_with(ProjectLimits(allocations_max=5))
    world.client().allocate()
    assert world.started[0].gate is None
