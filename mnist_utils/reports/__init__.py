"""Pages, tables and plots over many runs, built from their records alone."""
