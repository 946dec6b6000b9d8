"""What a node does for the clients it hosts: which work (`fedsgd`, `local_sgd`) and how (`fused`, `vmap`, `loop`)."""
