"""Transports: they know addresses and identity, and carry messages."""
