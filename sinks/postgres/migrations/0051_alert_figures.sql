-- Version 2 of alerts: the figures behind their words, and how handing one to a channel ended.
ALTER TABLE quaestor_v1.alert
    ADD COLUMN window_end timestamptz,
    ADD COLUMN limit_id text,
    ADD COLUMN currency text,
    ADD COLUMN spent_nano bigint,
    ADD COLUMN allowed_nano bigint,
    ADD COLUMN expected_nano bigint,
    ADD COLUMN action text,
    ADD COLUMN channel_id text,
    ADD COLUMN attempts integer;
