"""The audit log towards the outside: receipts, verification over HTTP."""
