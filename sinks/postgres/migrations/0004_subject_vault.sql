-- The subject vault (protocols.md, "Personal data"): the one table that is not a projection and has rows deleted.
-- Only its own role may touch it: neither the sinks nor readers can link a handle to a person.
CREATE TABLE quaestor.subject (
    tenant_id text NOT NULL,
    -- HMAC-SHA-256 of the user id under a key derived for this tenant.
    lookup_hash bytea NOT NULL CHECK (octet_length(lookup_hash) = 32),
    -- What stands in events: random, 32 hex digits.
    handle text NOT NULL UNIQUE CHECK (handle ~ '^[0-9a-f]{32}$'),
    -- The subject's data key, AES-256-GCM under another key derived for this tenant: nonce, ciphertext, tag.
    wrapped_key bytea NOT NULL CHECK (octet_length(wrapped_key) = 12 + 32 + 16),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, lookup_hash)
);
ALTER TABLE quaestor.subject OWNER TO quaestor_owner;
GRANT SELECT, INSERT, DELETE ON quaestor.subject TO quaestor_vault;
