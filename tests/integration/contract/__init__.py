"""The public contract, checked from outside: by clients that know only what is promised to them."""
