"""Messages and deltas as bytes; no sockets."""
