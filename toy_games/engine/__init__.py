"""What all dynamics run on: batched rows of runs, classes of policies and of rewards."""
