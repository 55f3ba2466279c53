"""`python -m ov_minilm` is `ov-minilm`."""

from ov_minilm.cli import main

main()
