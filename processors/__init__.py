"""Pure decisions: decide and evolve. No Kafka, no SQL, no asyncio, no clocks; now and ids are arguments."""
