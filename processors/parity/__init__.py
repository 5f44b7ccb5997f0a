"""What the log says must stand in every store: distinct ids, digests, sums, and who paid for what."""
