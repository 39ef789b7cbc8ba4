"""TODO finished."""
