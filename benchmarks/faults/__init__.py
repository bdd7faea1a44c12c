"""Programs with faults and healthy ones, each reporting the truth; an observer; and the comparison of both."""
