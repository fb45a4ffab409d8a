"""A small site: one page that follows runs with the JavaScript client and keeps a record of all that it is told."""
