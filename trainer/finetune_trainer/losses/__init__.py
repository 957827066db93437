"""Losses as sums beside the number of their targets.

`parts` says what a loss comes as; `per_row` and `per_token` compute it for one label per row and for next tokens;
`chunked_lm_head` does the latter without the logits of a language model ever being there.
"""
