"""What the experiments and the trainer share: settings, files, random streams, sweeps, evidence."""
