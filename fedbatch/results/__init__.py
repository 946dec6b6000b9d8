"""What a run leaves behind: the record, the summary, the picture."""
