"""What no stack on these parts can be faster than: a consumer that echoes, an arq job that does nothing."""
