"""Losses as sums beside the number of their targets.

`parts` says what a loss comes as; `rows` and `tokens` compute it for one label per row and for next tokens;
`cross_entropy` does the latter without the logits of a language model ever being there.
"""
