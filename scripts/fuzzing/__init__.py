"""Random files and requests, built from a schema of what is right, and readers that say what must come."""
