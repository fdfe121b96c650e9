"""Speed of fastpool against its rivals and the memory; see run.py."""
