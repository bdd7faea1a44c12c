"""Accuracy of the ETA beside other progress bars, on simulated and recorded runs."""
