"""The web endpoint: figures for Prometheus, a JSON API for operators, and the feed of the page."""
