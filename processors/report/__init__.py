"""The nightly report: a tenant's day from what the stores answer, whether it matches, and how it is told. Pure."""
