"""How a node runs the work of many clients: one by one, stacked, or all layers at once; and which is right and fastest."""
