"""The stores: one folder each with its DDL, its writes and its reads."""
