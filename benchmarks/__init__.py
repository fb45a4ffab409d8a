"""What is measured, against real servers: ``make bench`` (or ``python -m benchmarks``)."""
