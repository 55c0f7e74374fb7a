"""What a round did, measured on held-out prompts beside what theory predicts."""
