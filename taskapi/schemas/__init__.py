"""What the API says of itself: the OpenAPI document of REST and the AsyncAPI document of the WebSocket.

Both are made of the same definitions, which are pure: JSON Schema (draft 2020-12) in dicts.
"""
