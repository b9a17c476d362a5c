"""Every read that more than one room needs, and the reads of whole pages, with typed results."""
