"""The AsyncAPI document of a small project, which the Python and the TypeScript tests read."""
