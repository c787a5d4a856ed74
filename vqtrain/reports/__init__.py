"""Pages that show a run, a sweep or an evaluation, each one file that needs nothing else."""
