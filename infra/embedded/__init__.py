"""The local stack: real servers from packages, no containers."""
