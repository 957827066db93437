"""What can be watched from outside. Everything that is recorded goes through `prometheus`, whoever shows it.

prometheus            series, and `record_` functions for all that follows
live, pace            where the stage stands, how fast it goes, how long it still takes
server                /metrics, /progress and the wish for a checkpoint, over HTTP
progress              a bar, log lines and metrics.csv of one training
logs                  JSON lines
"""
