"""Where command lines of vqtrain run: on this machine, under SLURM, on Ray."""
