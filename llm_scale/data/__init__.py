"""What is learned: tasks, experts, preference oracles, prompts as tokens."""
