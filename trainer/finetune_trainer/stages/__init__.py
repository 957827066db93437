"""The two stages, each to be read from top to bottom.

`prepare` runs on a CPU: `probe` asks the store whether it does what a run needs, `preflight` the model's class what can
be trained of it. `train` fetches what that left (`train_inputs`), trains (`training.run`) and publishes.
"""
