"""What all stages of a run share: its context, its directory, words on what was lost, its records."""
