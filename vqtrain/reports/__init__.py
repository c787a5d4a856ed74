"""Pages that show a run, a sweep or an evaluation, each as one self-contained file."""
