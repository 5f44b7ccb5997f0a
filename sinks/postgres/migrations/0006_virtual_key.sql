-- Keys as the control plane describes them; the hash of a key is nobody's business here.
DROP VIEW quaestor_v1.virtual_key;
CREATE VIEW quaestor_v1.virtual_key AS
SELECT
    tenant_id,
    entity_id AS key_id,
    coalesce(state, last_state) ->> 'name' AS name,
    coalesce(state, last_state) ->> 'team_id' AS team_id,
    coalesce(state, last_state) ->> 'project_id' AS project_id,
    coalesce(coalesce(state, last_state) -> 'allowed_models', '[]'::jsonb) AS models,
    removed OR coalesce(state, last_state) ? 'revoked_at' AS revoked,
    changed_at,
    changed_by
FROM quaestor_v1.control_entity
WHERE entity_kind = 'KEY';
ALTER VIEW quaestor_v1.virtual_key OWNER TO quaestor_owner;
GRANT SELECT ON quaestor_v1.virtual_key TO quaestor_app, quaestor_reader;
