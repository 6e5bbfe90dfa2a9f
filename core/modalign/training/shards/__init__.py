"""Tables that are not held in memory: many files, read block by block."""
