"""What several test files need: stand-ins, small checkpoints and corpora, servers, and new processes."""
