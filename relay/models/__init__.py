from __future__ import annotations

from relay.models.connection_log import AuthenticationEvent, PeerFlow, Session, SessionMove
from relay.models.control import (
    ControlVersion,
    CredentialOverride,
    EndedSession,
    OnExpiryChoice,
    ProjectLimit,
)
from relay.models.quarantine import QuarantinedRecord, QuarantineReason
from relay.models.usage import UsageHour, UsageRecord

__all__ = [
    "AuthenticationEvent",
    "ControlVersion",
    "CredentialOverride",
    "EndedSession",
    "OnExpiryChoice",
    "PeerFlow",
    "ProjectLimit",
    "QuarantineReason",
    "QuarantinedRecord",
    "Session",
    "SessionMove",
    "UsageHour",
    "UsageRecord",
]
