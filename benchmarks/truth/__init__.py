"""The truth benchmark: how many violations are false, how many true ones are missed, how late they come.

``world`` lives through weeks of a simulated fleet; ``events`` says what truly happened; ``ours`` and
``ways`` judge the same fixes; ``score`` counts; ``report`` tells. ``make truth`` runs it all;
docs/truth.md explains it.
"""
