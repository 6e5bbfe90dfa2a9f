"""Embeds a table part by part: in this process, in several, or on a Ray cluster."""
