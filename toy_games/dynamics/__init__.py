"""What is run: SGD, sampled rounds, flows, two explicit players, preference rounds."""
