"""Generators of random files and requests, and independent readers that compute the expected results."""
