"""The vocabulary every other package shares: events, topics, money, ids, limits, errors. No I/O, no clocks."""
