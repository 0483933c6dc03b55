"""The TURN server's decisions: bytes and the time go in, effects come out (no I/O, no clock)."""
