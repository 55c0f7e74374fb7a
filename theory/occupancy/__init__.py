"""The game over occupancy measures of a token MDP: the problem and two solvers."""
