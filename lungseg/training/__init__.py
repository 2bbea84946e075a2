"""Training: from a data set to a checkpoint with its card.

Read in this order: `presets` (what can be chosen) and `presets.files` (where it stands), `config` (what is trained, and
who is told), `fit` (from a config to a checkpoint), `loop` (epoch by epoch) and `optimisation` (step by step), `state`
(what a killed run goes on from), `data_module` (what the engine asks of data). Slices of a store are the engine's own
data: `slice_data`, `sampling`, `slices`, `augmentation`, `slice_validation`. Other data come from `lungseg.recipes`.
"""
