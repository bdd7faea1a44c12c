"""What a person sees in each panel: real answers of Prometheus, shown by Grafana's own code."""
