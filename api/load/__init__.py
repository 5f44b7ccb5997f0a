"""The load generator: drives a gateway with a recorded trace or a made mix, and writes down every answer."""
