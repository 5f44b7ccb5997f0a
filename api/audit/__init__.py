"""The audit log towards the outside over HTTP: receipts, reading a log, a witness and the client that asks one."""
