"""The benchmark: `playerstate` and its alternatives, measured in one run.

``python -m bench`` runs the cases, ``python -m bench --list`` lists them.  Absolute times depend on
the machine; compare the ratios, since ours and its rivals take turns.
"""
