-- Data keys name the version of the key-encryption key that wraps them, so that it can be replaced; a key management
-- service's ciphertexts are longer than ours.
ALTER TABLE quaestor.subject
    ADD COLUMN key_version text NOT NULL DEFAULT '1' CHECK (length(key_version) BETWEEN 1 AND 256),
    DROP CONSTRAINT subject_wrapped_key_check,
    ADD CONSTRAINT subject_wrapped_key_check CHECK (octet_length(wrapped_key) BETWEEN 32 AND 8192);
GRANT UPDATE (key_version, wrapped_key) ON quaestor.subject TO quaestor_vault;

-- Changes of the control plane are few: looking one of them up must not read the whole audit log.
CREATE INDEX audit_entry_control ON quaestor.audit_entry (event_id) WHERE topic = 'quaestor.control';
