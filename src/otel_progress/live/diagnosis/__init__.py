"""Finds where work is stuck: call stacks, await chains, source lines, event loops."""
