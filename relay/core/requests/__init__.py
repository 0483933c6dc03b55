"""The methods of TURN, one function each (RFC 8656 sections 7 to 12).

Every function is given an authenticated `Exchange` and answers with effects. A refusal is raised as
`RequestRefusedError` and answered in one place.
"""

from __future__ import annotations
