"""The public contract, checked by clients that use only what it promises."""
