"""Faust agents: windowed watchers, one thin file each. Never a ledger, never a hot path."""

from __future__ import annotations
