"""Changed rows on their way to the store: the ring, the persist thread's work, and the outbox."""
