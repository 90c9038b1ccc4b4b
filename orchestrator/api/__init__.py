"""The only room that knows HTTP. ``v1`` and ``v2`` are the API's two dialects, pure; ``client`` sends and waits."""
