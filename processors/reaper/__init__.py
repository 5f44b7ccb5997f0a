"""The reaper: expires holds whose lease ran out, closes their requests, corrects estimates of late commits. Pure."""

from __future__ import annotations

from processors.reaper.reaper import Reaper, ReaperState

__all__ = ["Reaper", "ReaperState"]
