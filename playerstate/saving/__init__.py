"""The way of changed rows to the store: outbox, lanes, rings and persist threads."""
