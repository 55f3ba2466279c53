"""Shared by test files: fakes, small checkpoints and corpora, servers, and new processes."""
