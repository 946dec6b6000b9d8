"""What the server does: choose clients, ask nodes, add up what they answer, measure, step, and keep the state."""
