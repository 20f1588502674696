"""Training: the loop, checkpoints, optimisers, schedules; the same command again resumes."""
