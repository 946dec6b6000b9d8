"""What a node does: run the work of the clients that it hosts and answer the server's questions."""
