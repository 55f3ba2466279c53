"""Code that several test files use: fakes, small checkpoints and corpora, servers, processes."""
