-- The rate that a leg in another currency was held at (schema version 2 of quaestor.budgets).
ALTER TABLE {database}.budgets {on_cluster}
    ADD COLUMN IF NOT EXISTS `legs.exchange_rate_nano` Array(Nullable(Int64)) AFTER `legs.window_end`;
