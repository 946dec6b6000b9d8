"""Data sets as shared arrays, and partitions of them over clients as index arrays."""
