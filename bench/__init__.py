"""The benchmark: `playerstate` beside what would be used in its place, in one run.

``python -m bench`` measures, ``python -m bench --list`` says what.  Absolute times are the
machine's; what is to be compared are the ratios, because ours and its rivals take turns.
"""
