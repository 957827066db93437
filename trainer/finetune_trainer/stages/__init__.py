"""The two stages, top to bottom: `prepare` on a CPU, `train`; and what they ask of the store before they begin."""
