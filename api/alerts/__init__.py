"""Guardrails at work: limits are watched and people told, by one process of those that run; the others stand by."""
