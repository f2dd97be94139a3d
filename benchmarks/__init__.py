"""What the project costs, measured; run from the root of the repository."""
