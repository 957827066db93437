"""What a run decides by itself before it starts: `memory` predicts a micro-batch that fits, `plan` all that is open."""
