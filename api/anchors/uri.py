"""Which anchors the settings ask for: `file:PATH`, `s3://BUCKET/PREFIX`, `rfc3161:URL`, options after a #."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from api.anchors.s3 import S3Anchor, S3Options
from api.anchors.timestamp import TimestampAnchor
from schemas.errors import ConfigurationError
from schemas.limits import ANCHOR_PERIOD_SECONDS, ANCHOR_TIMEOUT_SECONDS, ANCHORS_MAX
from sinks.audit.anchors.file import FileAnchor
from sinks.audit.anchors.keeper import AnchorPlan
from sinks.audit.anchors.seam import Anchor
from sinks.audit.layout import AuditLayout

RETAIN_DAYS = 3_650
PERIOD_SECONDS_MAX = 31 * 86_400
COMMON = {"period_seconds", "timeout_seconds"}
OPTIONS = {
    "file": set[str](),
    "s3": {"endpoint", "region", "retain_days", "access_key", "secret_key"},
    "rfc3161": {"roots"},
}
ID_HEX_DIGITS = 16


@dataclass(frozen=True)
class AnchorUri:
    """An anchor as somebody wrote it."""

    kind: str
    #: Path, bucket and prefix, or URL.
    target: str
    options: dict[str, str]

    def number(self, name: str, default: int, highest: int) -> int:
        """A whole number from 1 on; raises ConfigurationError."""
        text = self.options.get(name, str(default))
        if not text.isdecimal() or not 1 <= int(text) <= highest:
            raise ConfigurationError(f"audit_anchors: {name} of {self.kind}:{self.target} is a number, 1 to {highest}")
        return int(text)


def parse_anchor(uri: str) -> AnchorUri:
    """The parts of an anchor's URI; raises ConfigurationError saying what is wrong."""
    given, _, fragment = uri.partition("#")
    kind, _, target = given.partition(":")
    if kind not in OPTIONS or not target:
        raise ConfigurationError(f"audit_anchors: {uri!r} is not file:PATH, s3://BUCKET/PREFIX or rfc3161:URL")
    try:
        options = dict(parse_qsl(fragment, strict_parsing=True, max_num_fields=16)) if fragment else {}
    except ValueError:
        raise ConfigurationError(f"audit_anchors: the options of {given} are name=value&name=value") from None
    unknown = sorted(options.keys() - OPTIONS[kind] - COMMON)
    if unknown:
        raise ConfigurationError(f"audit_anchors: {given} has no option {unknown[0]!r}")
    return AnchorUri(kind, target, options)


def make_plans(uris: Sequence[str], layout: AuditLayout) -> list[AnchorPlan]:
    """The anchors of a log, to be made inside the loop that serves them; raises ConfigurationError."""
    if len(uris) > ANCHORS_MAX or len({uri.partition("#")[0] for uri in uris}) < len(uris):
        raise ConfigurationError(f"audit_anchors: at most {ANCHORS_MAX}, and none twice")
    return [_plan(parse_anchor(uri), layout) for uri in uris]


def _plan(uri: AnchorUri, layout: AuditLayout) -> AnchorPlan:
    period = uri.number("period_seconds", ANCHOR_PERIOD_SECONDS, PERIOD_SECONDS_MAX)
    timeout = uri.number("timeout_seconds", ANCHOR_TIMEOUT_SECONDS, ANCHOR_TIMEOUT_SECONDS)
    return AnchorPlan(_MAKE[uri.kind](uri, layout), period, timeout)


def _file(uri: AnchorUri, _layout: AuditLayout) -> Anchor:
    return FileAnchor(Path(uri.target))


def _s3(uri: AnchorUri, _layout: AuditLayout) -> Anchor:
    bucket, _, prefix = uri.target.removeprefix("//").partition("/")
    prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    endpoint = urlsplit(uri.options.get("endpoint", ""))
    if not bucket or endpoint.scheme not in {"http", "https"} or not endpoint.netloc or endpoint.path.strip("/"):
        raise ConfigurationError(f"audit_anchors: s3:{uri.target} needs a bucket and endpoint=https://HOST")
    options = S3Options(
        endpoint=f"{endpoint.scheme}://{endpoint.netloc}",
        region=uri.options.get("region", "us-east-1"),
        bucket=bucket,
        prefix=prefix,
        retain_days=uri.number("retain_days", RETAIN_DAYS, 10 * RETAIN_DAYS),
        access_key_ref=uri.options.get("access_key", "env:AWS_ACCESS_KEY_ID"),
        secret_key_ref=uri.options.get("secret_key", "env:AWS_SECRET_ACCESS_KEY"),
    )
    return S3Anchor(options)


def _rfc3161(uri: AnchorUri, layout: AuditLayout) -> Anchor:
    url = urlsplit(uri.target)
    if url.scheme not in {"http", "https"} or not url.netloc or "@" in url.netloc:
        raise ConfigurationError("audit_anchors: a time stamp authority is rfc3161:https://HOST/PATH, no password")
    roots = uri.options.get("roots")
    folder = layout.anchor_directory / sha256(uri.target.encode("utf-8")).hexdigest()[:ID_HEX_DIGITS]
    return TimestampAnchor(uri.target, folder, None if roots is None else Path(roots))


_MAKE = {"file": _file, "s3": _s3, "rfc3161": _rfc3161}
