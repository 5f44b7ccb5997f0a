"""The embedded stack: real servers from ordinary packages, started, watched and stopped on one machine."""
