"""The client: a process that drives real sockets and does little else.

It shares the machine's cores with what it measures. So its WebSocket and its HTTP are minimal, on the standard library
alone, and it reads what arrives after the measuring if possible.
"""
