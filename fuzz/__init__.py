"""Fuzzers: damaged and hostile input for everything that reads what strangers may have written.

``python -m fuzz [READER ...] [--inputs N] [--seed S]``, from the top of the repository.
"""
