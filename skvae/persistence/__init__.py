"""State of saved estimators: its format and its validation."""
