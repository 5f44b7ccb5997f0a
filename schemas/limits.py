"""Every limit of the product, unit last in its name, with the relations between them asserted at import.

Settings may lower or raise what their reference page names; these are the defaults and the hard bounds.
"""

from __future__ import annotations

# Requests into the gateway.
BODY_BYTES_MAX = 10 * 1024 * 1024
# Of a body whose request is refused already: dropped, so that the caller reads the answer; beyond, it is cut off.
BODY_DROPPED_BYTES_MAX = 64 * 1024 * 1024
HEADER_BYTES_MAX = 32 * 1024
HEADER_COUNT_MAX = 100
TAGS_MAX = 16
TAG_KEY_CHARACTERS_MAX = 64
TAG_VALUE_CHARACTERS_MAX = 256
CONCURRENT_REQUESTS_MAX = 1_000
# Text of one request given to a tokenizer, and requests that wait for theirs; beyond either, bytes bound the tokens.
COUNTED_BYTES_MAX = 256 * 1024
COUNTS_WAITING_MAX = 16

# Calls to providers.
ATTEMPTS_MAX = 4
REQUEST_TIMEOUT_SECONDS = 300
CONNECT_TIMEOUT_SECONDS = 5
RESPONSE_BYTES_MAX = 32 * 1024 * 1024
RESPONSE_HEAD_BYTES_MAX = 64 * 1024
SSE_LINE_BYTES_MAX = 1024 * 1024
# Input tokens, and output tokens, that one attempt is held and charged for at most (docs/decisions/0071).
CALL_TOKENS_MAX = 10_000_000

# Holds (protocols.md, "Holds").
OVERLAY_SECONDS = 10
LEASE_SECONDS = 420
CLOCK_SKEW_SECONDS = 5
SPOOL_GRACE_SECONDS = 60
HOLD_TOMBSTONE_SECONDS = 24 * 3600
# So much earlier than folds forget a hold its end must be in the log: clocks differ, and batches are on their way.
HOLD_MARGIN_SECONDS = 3600
# A refused hold id: nobody asks for an attempt again after so long.
REFUSAL_SECONDS = 600
BUDGET_LAG_SECONDS_MAX = 5
LIMIT_UNITS_MAX = 9_000_000
LEGS_MAX = 32
# Of the memory that Redis may use: from where on a warning is given, and where admission ends. The rest is for the log.
REDIS_WARNING_PER_CENT = 80
REDIS_FULL_PER_CENT = 95
# Streams whose hold grows: output tokens of one step, per choice; of them, those that no text shows (its begin and end
# marks); and how long a stream that used up its hold waits for the next step.
STREAM_STEP_TOKENS = 1_024
STREAM_MARK_TOKENS = 16
STREAM_EXTEND_SECONDS_MAX = 5

# The log.
RECORD_BYTES_MAX = 1_000_000
DELIVERY_TIMEOUT_SECONDS = 5
PRODUCER_QUEUE_RECORDS_MAX = 100_000
PRODUCER_QUEUE_BYTES_MAX = 128 * 1024 * 1024
CONSUME_BATCH_RECORDS = 1_000
SESSION_SECONDS = 10
SPOOL_BYTES_MAX = 1024 * 1024 * 1024

# Sinks.
BATCH_RECORDS_MAX = 5_000
BATCH_BYTES_MAX = 8 * 1024 * 1024
BATCH_AGE_MILLISECONDS = 250
RETRY_SECONDS_MAX = 30
# A sink this far behind lets others have the CPU first (docs/decisions/0138).
YIELD_BEHIND_SECONDS = 30
ID_HORIZON_DAYS = 7

#: How long a batch of the Redis sink waits for disks, where that is asked for (docs/decisions/0158).
WAITAOF_SECONDS = 5.0

# Rebuilding live budgets (docs/decisions/0118).
SNAPSHOT_SECONDS = 60
SNAPSHOT_CHUNK_BYTES = 1024 * 1024
SNAPSHOT_BYTES_MAX = 64 * 1024 * 1024
SNAPSHOT_SLICE_RECORDS = 2_000
SNAPSHOT_ENDED_MAX = 250_000
REBUILD_ENTRIES_MAX = 1_000_000
#: Folding apart (docs/decisions/0136): a shorter log is folded before another process has started.
REBUILD_APART_RECORDS_MIN = 20_000
REBUILD_SLICE_RECORDS = 5_000
REBUILD_PROCESSES_MAX = 8
#: Movements that came behind what is folded apart, and wait for it in memory.
REBUILD_BEHIND_MAX = 100_000
REBUILD_WORD_BYTES_MAX = 256 * 1024 * 1024
#: A process that folds apart says something every second, once it has started.
REBUILD_SILENCE_SECONDS = 60

# Poison, per sink and partition: more than this pauses the partition (docs/decisions/0091).
POISON_IN_A_ROW_MAX = 100
POISON_WINDOW_RECORDS = 5_000
POISON_PERCENT_MAX = 5
UNRESOLVED_RECORDS_MAX = 10_000
REDRIVE_RECORDS_MAX = 500

# Alerts. What is not delivered by then is told nobody any more.
ALERTS_REMEMBERED_MAX = 100_000
ALERT_ATTEMPTS_MAX = 20
ALERT_PAUSE_SECONDS_MAX = 300
ALERT_DELIVERY_SECONDS_MAX = 24 * 3600
ALERT_SEND_SECONDS = 10
# Sends under way at once, in all and to one channel; to one that did not take the last, one.
ALERT_SENDS_AT_ONCE_MAX = 128
ALERT_CHANNEL_SENDS_AT_ONCE_MAX = 8
ALERT_COUNTERS_TOUCHED_MAX = 100_000
# Told by one look; fewer than are remembered, or the first would be forgotten and told again.
ALERTS_PER_LOOK_MAX = 1_000

# The audit log.
AUDIT_BATCH_AGE_MILLISECONDS = 200
AUDIT_INTEGRATE_MILLISECONDS = 250
AUDIT_INTEGRATE_ENTRIES_MAX = 16_384
AUDIT_UNINTEGRATED_ENTRIES_MAX = 65_536
# Its witnesses: how long one round of them may take, and for how long of that nothing else is done; when a quorum has
# signed, how long the others still may; and when a checkpoint without a quorum is an alarm.
AUDIT_WITNESS_SECONDS = 1.0
AUDIT_WITNESS_HOLD_SECONDS = 0.25
AUDIT_WITNESS_GRACE_SECONDS = 0.2
AUDIT_UNWITNESSED_SECONDS = 30.0
AUDIT_WITNESSES_MAX = 64
AUDIT_POLICY_BYTES_MAX = 64 * 1024
AUDIT_POLICY_LEVELS_MAX = 32
# A witness: what it is asked, and how much of that at once.
WITNESS_BODY_BYTES_MAX = 64 * 1024
WITNESS_REQUESTS_MAX = 64
WITNESS_ANSWER_BYTES_MAX = 64 * 1024
#: Reading somebody's log over HTTP: one file's time, and files at once.
AUDIT_FILE_SECONDS = 30.0
AUDIT_FILES_AT_ONCE_MAX = 8
# Its anchors.
#: Between two checkpoints that an anchor takes, when its URI does not say.
ANCHOR_PERIOD_SECONDS = 3_600
ANCHOR_TIMEOUT_SECONDS = 30
ANCHOR_RETRY_SECONDS = 1
ANCHOR_RETRY_SECONDS_MAX = 300
#: How soon an anchor that is due sees a log that grew.
ANCHOR_LOOK_SECONDS = 10
ANCHOR_ANSWER_BYTES_MAX = 4 * 1024 * 1024
ANCHORS_MAX = 16

# The console. A store's own bound on a statement (30 s) ends before a request does.
CONSOLE_REQUESTS_MAX = 64
CONSOLE_REQUEST_SECONDS = 40
CONSOLE_PAGE_MAX = 500
CONSOLE_BODY_BYTES_MAX = 64 * 1024
IDEMPOTENCY_KEY_CHARACTERS_MAX = 255
# What people write in their own words: reasons, sources, names of keys, who allowed something.
TEXT_CHARACTERS_MAX = 256
# An end user's id as callers name it.
USER_ID_CHARACTERS_MAX = 1_024
# Writes of the control plane by whose id a repeat is known.
CONTROL_WRITES_REMEMBERED = 10_000

# Retention. No producer may repeat an event that is older than days; a class stays far longer than that.
RETENTION_KEEP_DAYS_MIN = 30
RETENTION_KEEP_DAYS_MAX = 36_500
LEGAL_HOLDS_MAX = 1_000
#: The audit log is cut at multiples of this: whole bundles, and whole tiles of the level above them.
RETENTION_BLOCK_ENTRIES = 65_536
#: How long a cut waits for its own entry to be published.
RETENTION_ENTRY_SECONDS = 60

# The nightly report, and `verify budgets`.
#: After a request's last lease: streams tick, batches are written.
REPORT_SLACK_SECONDS = 60

# Who sends a body that is too large reads that it is.
assert BODY_BYTES_MAX < BODY_DROPPED_BYTES_MAX
# A request must end before its hold's lease does, or the reaper would charge a call that is still running.
assert REQUEST_TIMEOUT_SECONDS + DELIVERY_TIMEOUT_SECONDS < LEASE_SECONDS
# PLACED is acknowledged, or given up, well before its overlay entry falls away.
assert DELIVERY_TIMEOUT_SECONDS < OVERLAY_SECONDS
# A step has room for text.
assert STREAM_MARK_TOKENS < STREAM_STEP_TOKENS
# A late resolution finds the tombstone of its hold.
assert LEASE_SECONDS + CLOCK_SKEW_SECONDS + SPOOL_GRACE_SECONDS < HOLD_TOMBSTONE_SECONDS - HOLD_MARGIN_SECONDS
# Lua compares doubles: every sum of nano-units must stay an exact integer.
assert LIMIT_UNITS_MAX * 1_000_000_000 < 2**53
# A channel is given up before its alert is too old to be told.
assert ALERT_ATTEMPTS_MAX * (ALERT_PAUSE_SECONDS_MAX + ALERT_SEND_SECONDS) < ALERT_DELIVERY_SECONDS_MAX
# A channel that hangs leaves room for others.
assert ALERT_CHANNEL_SENDS_AT_ONCE_MAX < ALERT_SENDS_AT_ONCE_MAX
# One body fits a response buffer, one record fits a batch.
assert RECORD_BYTES_MAX < BATCH_BYTES_MAX
# A round of witnesses is over before their absence is an alarm.
assert AUDIT_WITNESS_GRACE_SECONDS < AUDIT_WITNESS_HOLD_SECONDS < AUDIT_WITNESS_SECONDS < AUDIT_UNWITNESSED_SECONDS
# A note of every witness's signature can be opened.
assert AUDIT_WITNESSES_MAX < 100  # noqa: PLR2004 - signatures per note, as in Go's parser
# The audit log's writer waits for its tiles before they are too far behind, never before one integration has room.
assert AUDIT_INTEGRATE_ENTRIES_MAX + BATCH_RECORDS_MAX < AUDIT_UNINTEGRATED_ENTRIES_MAX
# A run of poison alone is judged by its own limit, not by the share it has of the window.
assert POISON_WINDOW_RECORDS * POISON_PERCENT_MAX // 100 > POISON_IN_A_ROW_MAX
