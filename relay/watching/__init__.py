"""What operators see of a running relay: metrics, health, and how long its event loop was held up.

counters of core, sockets, journal ──observation──▶ snapshot ──report──▶ /metrics, /health
                                  in the relay's loop      in a thread with a loop of its own
"""

from __future__ import annotations
