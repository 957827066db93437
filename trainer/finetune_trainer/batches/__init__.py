"""From prepared rows to what one forward pass takes: dataset, sampler, collation, attention over packed rows."""
