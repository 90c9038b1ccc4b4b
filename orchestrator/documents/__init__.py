"""Documents: local files, known by their content. Finds, hashes and sorts them.

Knows no SQL and no HTTP of the API. A *document* is what the user has; a *file* is what the API has of it.
"""
