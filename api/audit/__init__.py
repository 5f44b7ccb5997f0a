"""The audit log's ways in and out over HTTP: a witness's server, and the client that asks witnesses."""
