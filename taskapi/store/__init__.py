"""How the rows of runs are written: statements, transactions, and many writes in one commit."""
