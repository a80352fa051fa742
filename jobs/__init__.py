"""Spark jobs: one file per stage, plus the private plumbing that runs them."""
