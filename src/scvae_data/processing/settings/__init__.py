"""What a run shall do, checked when it is said: a module for each group of the config."""
