"""What server and nodes say to each other: the messages, and their form on the wire."""
