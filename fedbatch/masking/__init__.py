"""Secure aggregation by masks that cancel in a sum: keys, shares of secrets, masks (Bonawitz et al. 2017)."""
