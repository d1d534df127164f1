"""The scheduler: nodes, edges and budgets, nothing of Docker."""
