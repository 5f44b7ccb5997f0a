"""Where to begin reading so that a state is whole again at a committed position."""

from __future__ import annotations

from collections.abc import Mapping

from streams.log import LogReader, Partition

ASK_SECONDS = 10.0
FIRST_STEP_SECONDS = 60
DOUBLINGS_MAX = 40


def warm_up_offsets(
    reader: LogReader,
    resumes: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    warm_up_seconds: int,
    now_millis: int,
) -> dict[Partition, int]:
    """Offsets at least `warm_up_seconds` older than the record at each position; raises LogUnavailableError. Blocks.

    The record may be old itself, after days of standing still, so its age is searched for by doubling steps back from
    now: what is read too much is at most once the time the stream stood still, and is only evolved.
    """
    ages = dict.fromkeys((at for at, resume in resumes.items() if resume >= ends[at]), 0)
    open_partitions = [at for at in resumes if at not in ages]
    step = FIRST_STEP_SECONDS
    for _ in range(DOUBLINGS_MAX):
        if not open_partitions:
            break
        found = reader.offsets_at(max(now_millis - step * 1_000, 0), open_partitions, ASK_SECONDS)
        ages |= {at: step for at in open_partitions if found[at] <= resumes[at]}
        open_partitions = [at for at in open_partitions if at not in ages]
        step *= 2
    starts: dict[Partition, int] = {}
    for age in sorted(set(ages.values())):
        alike = [at for at in ages if ages[at] == age]
        time_millis = max(now_millis - (age + warm_up_seconds) * 1_000, 0)
        starts |= reader.offsets_at(time_millis, alike, ASK_SECONDS)
    return {at: min(starts.get(at, 0), resume) for at, resume in resumes.items()}
