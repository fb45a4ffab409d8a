"""A small site: its page follows runs with the JavaScript client, and records each call of it."""
