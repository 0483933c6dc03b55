"""The connection logs of the privacy policy's section 3: these fields, and no others.

The tables are partitioned by the day (UTC) of a time in their key, and a day is dropped whole
when its time is up. Node, boot and the number of the allocation or event say which record of
which relay a row is (`relay.metering.records`); the project says whose it is.

The foreign keys are not enforced by the database: an enforced one makes every partition that comes
or goes lock the table of projects.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from accounts.models import Project


class Transport(models.TextChoices):
    """The protocol between client and relay."""

    UDP = "udp", "UDP"
    TCP = "tcp", "TCP"
    TLS = "tls", "TLS"
    DTLS = "dtls", "DTLS"


class Session(models.Model):
    """One allocation, from its start to its end; partitioned by `started_at`.

    The byte counters are the relay's view: on the client's side with STUN and ChannelData framing,
    on the peers' side data only.
    """

    pk = models.CompositePrimaryKey("node", "boot", "allocation", "started_at")
    node = models.CharField(max_length=64)
    boot = models.CharField(max_length=64)
    allocation = models.PositiveBigIntegerField()
    project = models.ForeignKey(
        Project, models.PROTECT, db_constraint=False, db_index=False, related_name="sessions"
    )
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    client_address = models.GenericIPAddressField()
    client_port = models.IntegerField()
    transport = models.CharField(max_length=4, choices=Transport.choices)
    client_received_bytes = models.PositiveBigIntegerField(default=0)
    client_sent_bytes = models.PositiveBigIntegerField(default=0)
    peer_received_bytes = models.PositiveBigIntegerField(default=0)
    peer_sent_bytes = models.PositiveBigIntegerField(default=0)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index("project", "started_at", name="session_of_project"),
            models.Index(
                "project", name="session_open_of_project", condition=models.Q(ended_at=None)
            ),
            models.Index(
                "node", "boot", name="session_open_of_boot", condition=models.Q(ended_at=None)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.node}/{self.boot}/{self.allocation}"


class PeerFlow(models.Model):
    """A peer that a session exchanged data with; partitioned like its session."""

    pk = models.CompositePrimaryKey(
        "node", "boot", "allocation", "peer_address", "peer_port", "session_started_at"
    )
    node = models.CharField(max_length=64)
    boot = models.CharField(max_length=64)
    allocation = models.PositiveBigIntegerField()
    peer_address = models.GenericIPAddressField()
    peer_port = models.IntegerField()
    session_started_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"a peer of {self.node}/{self.boot}/{self.allocation}"


class SessionMove(models.Model):
    """A client came back from another address and went on (RFC 8016); partitioned like its session.

    From `moved_at` on, until the next move or the session's end, the client is at this address.
    """

    pk = models.CompositePrimaryKey("node", "boot", "allocation", "number", "session_started_at")
    node = models.CharField(max_length=64)
    boot = models.CharField(max_length=64)
    allocation = models.PositiveBigIntegerField()
    number = models.PositiveBigIntegerField()
    session_started_at = models.DateTimeField()
    moved_at = models.DateTimeField()
    client_address = models.GenericIPAddressField()
    client_port = models.IntegerField()
    transport = models.CharField(max_length=4, choices=Transport.choices)

    def __str__(self) -> str:
        return f"move {self.number} of {self.node}/{self.boot}/{self.allocation}"


class AuthenticationEvent(models.Model):
    """Somebody proved who he is, or failed to; partitioned by `occurred_at`.

    The project is that of the credential, where there was one that we had minted.
    """

    pk = models.CompositePrimaryKey("node", "boot", "number", "occurred_at")
    node = models.CharField(max_length=64)
    boot = models.CharField(max_length=64)
    number = models.PositiveBigIntegerField()
    project = models.ForeignKey(
        Project, models.PROTECT, db_constraint=False, db_index=False, null=True, related_name="+"
    )
    occurred_at = models.DateTimeField()
    client_address = models.GenericIPAddressField()
    client_port = models.IntegerField()
    transport = models.CharField(max_length=4, choices=Transport.choices)
    outcome = models.CharField(max_length=32)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index("project", "occurred_at", name="authentication_of_project")
        ]

    def __str__(self) -> str:
        return f"{self.node}/{self.boot}/{self.number}: {self.outcome}"
