"""Metrics, computed from sums over examples so that they are exact over clients."""
