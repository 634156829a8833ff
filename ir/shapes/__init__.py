"""Types and shapes of every value, with sizes that are not numbers."""
