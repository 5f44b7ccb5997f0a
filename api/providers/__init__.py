"""Upstream adapters and the simulated provider."""
