"""Two peers in this process that may speak to each other through the relay only.

Each function takes the answer of the credential API as it came, connects the peers (by a data
channel where they speak WebRTC), sends every message to the other peer, which sends it back, and
returns what came back.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aioice
import aiortc
import webrtc

OPEN_SECONDS_MAX = 60
AGAIN_SECONDS = 0.5
TURN = re.compile(r"(turns?):(.+):([0-9]+)\?transport=(udp|tcp)")


async def aioice_exchange(answer: dict[str, Any], messages: list[bytes]) -> list[bytes]:
    """Through two ICE agents of aioice, without WebRTC above; datagrams have a longest length."""
    caller, callee = (aioice_agent(answer, controlling=each) for each in (True, False))
    try:
        for agent in (caller, callee):
            await agent.gather_candidates()
            assert {each.type for each in agent.local_candidates} == {"relay"}
        for agent, other in ((caller, callee), (callee, caller)):
            agent.remote_username, agent.remote_password = (
                other.local_username,
                other.local_password,
            )
            for candidate in (*other.local_candidates, None):
                await agent.add_remote_candidate(candidate)
        await asyncio.wait_for(asyncio.gather(caller.connect(), callee.connect()), OPEN_SECONDS_MAX)
        returned = []
        for message in messages:
            await caller.send(message)
            await callee.send(await asyncio.wait_for(callee.recv(), OPEN_SECONDS_MAX))
            returned.append(await asyncio.wait_for(caller.recv(), OPEN_SECONDS_MAX))
        return returned
    finally:
        await caller.close()
        await callee.close()


def aioice_agent(answer: dict[str, Any], *, controlling: bool) -> aioice.Connection:
    """An agent that has the first TURN server of the answer and nothing else."""
    server = next(each for each in answer["iceServers"] if "username" in each)
    found = TURN.fullmatch(server["urls"][0])
    assert found
    return aioice.Connection(
        ice_controlling=controlling,
        turn_server=(found[2], int(found[3])),
        turn_username=server["username"],
        turn_password=server["credential"],
        turn_ssl=found[1] == "turns",
        turn_transport=found[4],
        transport_policy=aioice.TransportPolicy.RELAY,
    )


async def aiortc_exchange(
    answer: dict[str, Any], messages: list[bytes], *, repeated: bool = False
) -> list[bytes]:
    """Through two aiortc peers.

    Args:
        answer: of the credentials API.
        messages: what is sent.
        repeated: send each again until it is back, and let SCTP give up what is lost. That of
            aiortc may forget one chunk that others have overtaken, and wait for it for ever.
    """
    configuration = aiortc.RTCConfiguration(
        iceServers=[aiortc.RTCIceServer(**each) for each in answer["iceServers"]],
        iceTransportPolicy=aiortc.RTCIceTransportPolicy.RELAY,
    )
    caller, callee = (aiortc.RTCPeerConnection(configuration) for _ in range(2))
    returned: asyncio.Queue[bytes] = asyncio.Queue()
    opened = asyncio.Event()
    retransmits = 0 if repeated else None
    channel = caller.createDataChannel("test", ordered=not repeated, maxRetransmits=retransmits)
    channel.on("open", opened.set)
    channel.on("message", returned.put_nowait)
    callee.on("datachannel", lambda other: other.on("message", other.send))
    try:
        await caller.setLocalDescription(await caller.createOffer())
        await callee.setRemoteDescription(caller.localDescription)
        await callee.setLocalDescription(await callee.createAnswer())
        await caller.setRemoteDescription(callee.localDescription)
        await asyncio.wait_for(opened.wait(), OPEN_SECONDS_MAX)
        assert candidate_types(caller.localDescription.sdp) == {"relay"}
        assert candidate_types(callee.localDescription.sdp) == {"relay"}
        if repeated:
            sending = send_until_back(channel, returned, messages)
            return await asyncio.wait_for(sending, OPEN_SECONDS_MAX)
        for message in messages:
            channel.send(message)
        return [await asyncio.wait_for(returned.get(), OPEN_SECONDS_MAX) for _ in messages]
    finally:
        await caller.close()
        await callee.close()


async def send_until_back(
    channel: aiortc.RTCDataChannel, returned: asyncio.Queue[bytes], messages: list[bytes]
) -> list[bytes]:
    """Send each message until it has come back; those that have."""
    back: set[bytes] = set()
    while missing := set(messages) - back:
        for message in missing:
            channel.send(message)
        await asyncio.sleep(AGAIN_SECONDS)
        while not returned.empty():
            back.add(returned.get_nowait())
    return [message for message in messages if message in back]


async def libwebrtc_exchange(answer: dict[str, Any], messages: list[bytes]) -> list[bytes]:
    """Through two peers of Chrome's own implementation."""
    configuration = webrtc.RTCConfiguration.from_json({**answer, "iceTransportPolicy": "relay"})
    caller, callee = (webrtc.RTCPeerConnection(configuration) for _ in range(2))
    returned: asyncio.Queue[bytes] = asyncio.Queue()
    opened = asyncio.Event()
    channel = caller.create_data_channel("test")
    channel.on("open", lambda _: opened.set())

    def keep(event: webrtc.MessageEvent) -> None:
        assert isinstance(event.data, bytes)
        returned.put_nowait(event.data)

    channel.on("message", keep)

    def echo(event: webrtc.RTCDataChannelEvent) -> None:
        event.channel.on("message", lambda message: event.channel.send(message.data))

    callee.on("datachannel", echo)
    try:
        offer = await described(caller, await caller.create_offer())
        await callee.set_remote_description(offer)
        await caller.set_remote_description(await described(callee, await callee.create_answer()))
        await asyncio.wait_for(opened.wait(), OPEN_SECONDS_MAX)
        for message in messages:
            channel.send(message)
        return [await asyncio.wait_for(returned.get(), OPEN_SECONDS_MAX) for _ in messages]
    finally:
        caller.close()
        callee.close()


async def described(
    peer: webrtc.RTCPeerConnection, description: webrtc.RTCSessionDescriptionInit
) -> webrtc.RTCSessionDescription:
    """The local description once it holds all candidates, each of them on the relay."""
    gathered = asyncio.Event()

    def candidate(event: webrtc.RTCPeerConnectionIceEvent) -> None:
        if event.candidate is None:
            gathered.set()

    peer.on("icecandidate", candidate)
    await peer.set_local_description(description)
    await asyncio.wait_for(gathered.wait(), OPEN_SECONDS_MAX)
    complete = peer.local_description
    assert complete
    assert candidate_types(complete.sdp) == {"relay"}
    return complete


def candidate_types(sdp: str) -> set[str]:
    """The types of the candidates in a session description."""
    lines = (line.split() for line in sdp.splitlines() if line.startswith("a=candidate:"))
    return {words[words.index("typ") + 1] for words in lines}
