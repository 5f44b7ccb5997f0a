"""Postgres: ledgers, requests, keys, quarantine, the subject vault; the only home of asyncpg."""
