"""Documents: which there are and how they are called, what the API has of each, and where they were sorted."""
