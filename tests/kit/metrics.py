"""Figures as a server shows them to Prometheus."""

METRICS = """\
# HELP playerstate_players_online Players in the game.
# TYPE playerstate_players_online gauge
playerstate_players_online 100.0
# TYPE playerstate_players_leaving gauge
playerstate_players_leaving 2.0
# TYPE playerstate_updates_applied_total counter
playerstate_updates_applied_total 5000.0
# TYPE playerstate_updates_rejected_total counter
playerstate_updates_rejected_total{reason="not_joined"} 3.0
playerstate_updates_rejected_total{reason="other_address"} 4.0
# HELP playerstate_store_errors_total Errors of the store.
# TYPE playerstate_store_errors_total counter
# TYPE playerstate_oldest_unsaved_seconds gauge
playerstate_oldest_unsaved_seconds 2.5
# TYPE playerstate_save_within_seconds gauge
playerstate_save_within_seconds 5.0
# TYPE playerstate_queue_depth gauge
playerstate_queue_depth 4096.0
# TYPE playerstate_queue_capacity gauge
playerstate_queue_capacity 8192.0
# TYPE playerstate_persist_latency_seconds histogram
playerstate_persist_latency_seconds_bucket{le="0.001"} 10.0
playerstate_persist_latency_seconds_bucket{le="0.01"} 98.0
playerstate_persist_latency_seconds_bucket{le="+Inf"} 100.0
playerstate_persist_latency_seconds_count 100.0
playerstate_persist_latency_seconds_sum 0.5
# TYPE playerstate_live_file_bytes gauge
playerstate_live_file_bytes 2097152.0
# TYPE playerstate_build info
playerstate_build_info{version="0.1.0"} 1.0
# TYPE process_open_fds gauge
process_open_fds 7.0
"""
