"""The harness of Weir's benchmark: see bench/README.md."""
