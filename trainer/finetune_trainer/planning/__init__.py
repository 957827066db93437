"""What a run decides by itself, before it starts: micro-batch, memory, steps."""
