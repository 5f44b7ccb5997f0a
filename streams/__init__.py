"""The log: codec, Kafka clients, the stream runtime and its agents."""
