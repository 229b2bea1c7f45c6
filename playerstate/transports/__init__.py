"""Transports: they map addresses to players, and carry messages."""
