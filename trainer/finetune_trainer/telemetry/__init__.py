"""What can be watched from outside: Prometheus series, progress, logs."""
