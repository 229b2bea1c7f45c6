"""What players say and are told: conversations, moves, joins, receipts."""
