"""A tiny model's listed laws against exact rounds."""
