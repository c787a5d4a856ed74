"""Pages that show a run, a sweep, an evaluation or a probe, each as one self-contained file."""
