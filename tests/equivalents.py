"""The mutants that no test can kill, because they change nothing that can be seen: each with the reason."""

from __future__ import annotations

EQUIVALENT: dict[str, str] = {}
