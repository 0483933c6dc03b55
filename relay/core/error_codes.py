"""The error codes this server answers with (RFC 8489 section 14.8, RFC 8656 section 19, RFC 6062
section 6.3, RFC 8016 section 3.4)."""

from __future__ import annotations

BAD_REQUEST = 400
UNAUTHENTICATED = 401
FORBIDDEN = 403
MOBILITY_FORBIDDEN = 405
UNKNOWN_ATTRIBUTE = 420
ALLOCATION_MISMATCH = 437
STALE_NONCE = 438
ADDRESS_FAMILY_NOT_SUPPORTED = 440
WRONG_CREDENTIALS = 441
UNSUPPORTED_TRANSPORT = 442
PEER_ADDRESS_FAMILY_MISMATCH = 443
CONNECTION_ALREADY_EXISTS = 446
CONNECTION_TIMEOUT_OR_FAILURE = 447
ALLOCATION_QUOTA_REACHED = 486
SERVER_ERROR = 500
INSUFFICIENT_CAPACITY = 508

# The phrases of IANA's registry, for people who read a client's log.
REASONS = {
    BAD_REQUEST: "Bad Request",
    UNAUTHENTICATED: "Unauthenticated",
    FORBIDDEN: "Forbidden",
    MOBILITY_FORBIDDEN: "Mobility Forbidden",
    UNKNOWN_ATTRIBUTE: "Unknown Attribute",
    ALLOCATION_MISMATCH: "Allocation Mismatch",
    STALE_NONCE: "Stale Nonce",
    ADDRESS_FAMILY_NOT_SUPPORTED: "Address Family not Supported",
    WRONG_CREDENTIALS: "Wrong Credentials",
    UNSUPPORTED_TRANSPORT: "Unsupported Transport Protocol",
    PEER_ADDRESS_FAMILY_MISMATCH: "Peer Address Family Mismatch",
    CONNECTION_ALREADY_EXISTS: "Connection Already Exists",
    CONNECTION_TIMEOUT_OR_FAILURE: "Connection Timeout or Failure",
    ALLOCATION_QUOTA_REACHED: "Allocation Quota Reached",
    SERVER_ERROR: "Server Error",
    INSUFFICIENT_CAPACITY: "Insufficient Capacity",
}
