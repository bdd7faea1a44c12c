"""Programs with faults, and healthy ones, that say truly what they do; an observer; and the comparison of both."""
