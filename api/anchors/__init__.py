"""Anchors over HTTP, and which anchors the settings ask for."""
