"""``python -m playerstate.cli``."""

from playerstate.cli import main

main(prog_name="playerstate")
