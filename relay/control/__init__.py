"""The control channel: what running relays are told and asked, over Valkey (ADR 0009)."""

from __future__ import annotations
