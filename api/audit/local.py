"""Where this product's log is and whose signatures it has; apart, so that nothing else is loaded with it."""

from __future__ import annotations

from api.settings import Settings
from processors.audit.trust import Trust
from sinks.audit.key_ring import KeyRing
from sinks.audit.layout import AuditLayout


def layout_of(settings: Settings) -> AuditLayout:
    """Where this product's log is."""
    return AuditLayout(settings.data, settings.audit_log, settings.audit_origin)


def trust_of(layout: AuditLayout) -> Trust:
    """The log's own keys, the retired ones too; raises ConfigurationError when there are none."""
    chain = KeyRing(layout).load().chain
    return Trust(chain.keys, hand_overs=chain.hand_overs)
