"""What a CSV file holds, column by column. Pure: text in, plain values out; no Django and no files.

`read` splits a text into rows. A `Profile` guesses what each column holds, takes the rows in one at a time, says what
is wrong with each, and in the end gives its summary as JSON can carry it.
"""

from demo.profiling.profile import Profile
from demo.profiling.table import Row, Table, read

__all__ = ["Profile", "Row", "Table", "read"]
