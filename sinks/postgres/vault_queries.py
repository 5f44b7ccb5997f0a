"""Every statement of the subject vault. Apart from the sink's, so that a gateway loads nothing of a sink."""

from __future__ import annotations

FIND_SUBJECT = "SELECT handle, wrapped_key FROM quaestor.subject WHERE tenant_id = $1 AND lookup_hash = $2"
MAKE_SUBJECT = """
INSERT INTO quaestor.subject (tenant_id, lookup_hash, handle, wrapped_key)
VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant_id, lookup_hash) DO NOTHING
"""
FORGET_SUBJECT = "DELETE FROM quaestor.subject WHERE tenant_id = $1 AND lookup_hash = $2"
