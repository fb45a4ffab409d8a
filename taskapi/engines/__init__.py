"""How runs are executed where their backend puts them."""
