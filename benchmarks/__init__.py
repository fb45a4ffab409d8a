"""The speed of the package, measured beside its peers on real servers: ``make bench``."""
