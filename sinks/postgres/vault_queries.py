"""Every statement of the subject vault. Apart from the sink's, so that a gateway loads nothing of a sink."""

from __future__ import annotations

FIND_SUBJECT = """
SELECT tenant_id, lookup_hash, handle, key_version, wrapped_key FROM quaestor.subject
WHERE tenant_id = $1 AND lookup_hash = $2
"""
FIND_HANDLE = """
SELECT tenant_id, lookup_hash, handle, key_version, wrapped_key FROM quaestor.subject WHERE handle = $1
"""
MAKE_SUBJECT = """
INSERT INTO quaestor.subject (tenant_id, lookup_hash, handle, key_version, wrapped_key)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, lookup_hash) DO NOTHING
"""
DESTROY_SUBJECTS = "DELETE FROM quaestor.subject WHERE handle = ANY($1::text[]) RETURNING 1"
SUBJECTS_AFTER = """
SELECT tenant_id, lookup_hash, handle, key_version, wrapped_key FROM quaestor.subject
WHERE handle > $1 ORDER BY handle LIMIT $2
"""
REWRAP_SUBJECT = """
UPDATE quaestor.subject SET key_version = $4, wrapped_key = $5
WHERE handle = $1 AND key_version = $2 AND wrapped_key = $3
"""
