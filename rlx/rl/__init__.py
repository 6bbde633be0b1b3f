"""Reinforcement learning with verifiable rewards: loop, rollouts, objective, update."""
