"""What server and nodes both build from a config, and the checks that refuse a run which cannot work."""
