"""The best plan of a question."""
