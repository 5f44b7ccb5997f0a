"""Benchmarks: each measures what an issue or a page puts a number on; results are in docs/reference/performance.md."""
