"""The limits of every stack on these parts: a consumer that echoes, an arq job that does nothing."""
