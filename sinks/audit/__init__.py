"""The audit log: sequences every record into a Merkle tree, publishes it as C2SP tiles, verifies it."""
