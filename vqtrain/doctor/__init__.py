"""What the doctor finds out: about this machine, about images, and about the speed of a run."""
