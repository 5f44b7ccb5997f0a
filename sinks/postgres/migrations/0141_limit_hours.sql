-- How limits stood at the end of each hour (sinks/redis/hours.py), for five weeks: what projections and unusual hours are
-- told from. Redis serves them; these rows are what it gets back when it lost them. They are noted, not folded from the
-- log, and so stand with what all versions of projections share.

CREATE TABLE quaestor.limit_hour (
    tenant_id text NOT NULL,
    limit_id text NOT NULL,
    -- The hour that ended, counted since the epoch.
    hour bigint NOT NULL,
    -- Of the window that the hour ended in, microseconds since the epoch.
    window_start bigint NOT NULL,
    -- What that window had charged, nano-units of the limit's currency.
    posted_nano bigint NOT NULL,
    PRIMARY KEY (tenant_id, limit_id, hour)
);
-- Old ones go, of limits that nobody watches any more too.
CREATE INDEX limit_hour_hour ON quaestor.limit_hour (hour);
ALTER TABLE quaestor.limit_hour OWNER TO quaestor_owner;
GRANT SELECT, INSERT, DELETE ON quaestor.limit_hour TO quaestor_app;
GRANT UPDATE (window_start, posted_nano) ON quaestor.limit_hour TO quaestor_app;
