"""The client: a process of its own that drives real sockets, and does little beside.

It shares the machine's cores with what it measures. So its WebSocket and its HTTP are the least that serves, on the
standard library alone, and what arrives is read after the measuring where that can wait.
"""
