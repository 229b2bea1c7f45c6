"""The service: join, move, leave and flush; start and stop."""
