-- Snapshots of live budgets with their offsets (sinks/redis/snapshots.py): the newest two of each partition. They make
-- a rebuild of Redis short and are never needed for it, so they may be deleted at any time.

CREATE TABLE quaestor.budget_snapshot (
    projection text NOT NULL,
    partition integer NOT NULL,
    -- Every event of the partition below it is in the snapshot.
    log_offset bigint NOT NULL CHECK (log_offset >= 0),
    -- The topic's UUID.
    topic_id text NOT NULL,
    -- Of the owner that took it; nobody of an earlier epoch adds one.
    epoch bigint NOT NULL,
    -- What it consists of, MessagePack, and the SHA-256 of that.
    manifest bytea NOT NULL CHECK (octet_length(manifest) <= 16777216),
    digest bytea NOT NULL,
    -- The chunks it needs, each once.
    chunks bytea[] NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, partition, topic_id, log_offset)
);

-- Parts of snapshots, named by their SHA-256: what two snapshots share is kept once.
CREATE TABLE quaestor.budget_snapshot_chunk (
    projection text NOT NULL,
    partition integer NOT NULL,
    digest bytea NOT NULL,
    body bytea NOT NULL CHECK (octet_length(body) <= 1048576),
    PRIMARY KEY (projection, partition, digest)
);

ALTER TABLE quaestor.budget_snapshot OWNER TO quaestor_owner;
ALTER TABLE quaestor.budget_snapshot_chunk OWNER TO quaestor_owner;
GRANT SELECT, INSERT, DELETE ON quaestor.budget_snapshot, quaestor.budget_snapshot_chunk TO quaestor_app;
GRANT SELECT ON quaestor.budget_snapshot TO quaestor_reader;
