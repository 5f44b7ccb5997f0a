"""Proves that the stores agree with the log, and the log with the clients."""
