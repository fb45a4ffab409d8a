"""Profiles a CSV file column by column. Pure: text in, plain values out; no Django and no files.

`read` splits a text into rows. A `Profile` guesses the kind of each column, takes the rows one at a time, reports
what is wrong with each, and in the end returns a summary that fits into JSON.
"""

from demo.profiling.profile import Profile
from demo.profiling.table import Row, Table, read

__all__ = ["Profile", "Row", "Table", "read"]
