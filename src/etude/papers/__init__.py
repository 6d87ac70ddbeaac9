"""The studies: one file a paper."""
