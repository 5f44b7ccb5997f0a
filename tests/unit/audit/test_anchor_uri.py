"""What the settings may say of anchors."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.anchors.uri import make_plans, parse_anchor
from schemas.errors import ConfigurationError
from schemas.limits import ANCHORS_MAX
from sinks.audit.layout import AuditLayout


async def test_each_kind_is_made(tmp_path: Path) -> None:
    """Path, bucket and URL; period and time-out where they are given, the usual ones where not."""
    uris = [
        "file:/mnt/worm/a.jsonl#period_seconds=60&timeout_seconds=5",
        "s3://bucket/a/b/#endpoint=https%3A%2F%2Fs3.example&region=eu",
        "s3://bucket#endpoint=https://s3.example:9000/",
        "rfc3161:https://tsa.example/tsr?x=1#period_seconds=86400",
    ]
    plans = make_plans(uris, AuditLayout(tmp_path))
    for plan in plans:
        await plan.anchor.close()

    assert [
        ("file:/mnt/worm/a.jsonl", 60, 5),
        ("s3://bucket/a/b/", 3_600, 30),
        ("s3://bucket/", 3_600, 30),
        ("rfc3161:https://tsa.example/tsr?x=1", 86_400, 30),
    ] == [(plan.anchor.name, plan.period_seconds, plan.timeout_seconds) for plan in plans]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "is not file:PATH"),
        ("file:", "is not file:PATH"),
        ("ftp://x", "is not file:PATH"),
        ("file:/a#b", "name=value"),
        ("file:/a#period=5", "no option 'period'"),
        ("file:/a#endpoint=https://x", "no option 'endpoint'"),
        ("file:/a#period_seconds=0", "period_seconds"),
        ("file:/a#timeout_seconds=31", "timeout_seconds"),
        ("file:/a#timeout_seconds=1.5", "timeout_seconds"),
        ("s3://bucket", "endpoint"),
        ("s3:///key#endpoint=https://x", "bucket"),
        ("s3://bucket#endpoint=x", "endpoint"),
        ("s3://bucket#endpoint=https://x/path", "endpoint"),
        ("s3://bucket#endpoint=https://x&retain_days=0", "retain_days"),
        ("rfc3161:tsa.example", "rfc3161:https"),
        ("rfc3161:https://user:secret@tsa.example", "no password"),
        ("rfc3161:https://tsa.example#roots=/none", "roots"),
    ],
)
async def test_what_makes_no_sense_is_refused(tmp_path: Path, uri: str, words: str) -> None:
    """At the start, with the setting's name or the thing that is wrong."""
    with pytest.raises(ConfigurationError, match=words) as refused:
        make_plans([uri], AuditLayout(tmp_path))
    assert "secret" not in str(refused.value)


def test_none_twice_and_not_too_many(tmp_path: Path) -> None:
    """Two of one name would keep one state."""
    for uris in (["file:/a", "file:/a#period_seconds=5"], [f"file:/{number}" for number in range(ANCHORS_MAX + 1)]):
        with pytest.raises(ConfigurationError, match="at most"):
            make_plans(uris, AuditLayout(tmp_path))
    assert "file" == parse_anchor("file:relative/path").kind
