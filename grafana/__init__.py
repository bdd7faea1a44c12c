"""What Grafana and Prometheus need: dashboards, data sources, alert rules."""
