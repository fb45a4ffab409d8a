"""Profiles a CSV file column by column. Pure: a file in, plain values out; no Django and no tasks.

`read` looks through a file, and gives its rows in batches. A `Profile` guesses the kind of each column, takes the
batches, reports what is wrong with their rows, draws a picture now and then, and in the end returns a summary that fits
into JSON.
"""

from demo.profiling.profile import Profile
from demo.profiling.table import Batch, Table, read

__all__ = ["Batch", "Profile", "Table", "read"]
