"""How a node runs the work of many clients: one by one, stacked, or by layers; and which way is right and fastest."""
