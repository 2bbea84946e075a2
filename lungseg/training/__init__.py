"""Training: from a data set to a checkpoint with its card.

Read in this order: `presets` and `presets.files` (values and files of presets), `config` (config and callbacks), `fit`
(from a config to a checkpoint), `loop` (epochs), `optimisation` (steps), `state` (files for a resume), `data_module`
(the interface of data). Slices of a store are the engine's own data: `slice_data`, `slices`, `augmentation`,
`slice_validation`. `lungseg.recipes` has other data.
"""
