"""How fast it is, measured beside its peers on real servers: ``make bench``, or ``python -m benchmarks``."""
