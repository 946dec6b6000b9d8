"""Other people's dashboards, fed while a run goes; the run folder stays the truth."""
