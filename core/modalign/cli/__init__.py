"""The command line: one file per verb, nothing heavy until a verb runs."""
