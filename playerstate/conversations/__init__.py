"""Conversations with clients: JOINs, moves, receipts, LEAVEs."""
