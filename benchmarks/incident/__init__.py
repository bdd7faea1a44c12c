"""A drill of a real incident: programs that hang, loop, wait and die, and what a webhook and the panels say."""
