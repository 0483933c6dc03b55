"""Who may cut an IPv4 datagram up on its way (RFC 8656 section 14): socket options of Linux.

Nothing that came in says whether its DF bit was set, and most of what we send may be cut up.
"""

from __future__ import annotations

import socket

# From <linux/in.h>; the module `socket` lacks them.
IP_MTU_DISCOVER = 10
PMTUDISC_PROBE = 3  # DF is set; what the kernel has heard of the path is not asked
PMTUDISC_OMIT = 5  # DF is clear, and ICMP errors cannot make the kernel fragment more

SocketOption = tuple[int, int, int]  # level, option, value
DF_SET: SocketOption = (socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
DF_CLEAR: SocketOption = (socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_OMIT)
