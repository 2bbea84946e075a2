"""Data sets to train on: what lies in a folder, what is wrong with it, its figures, and its slices made ready.

The way of a data set::

    layout.open_data_set(folder)       which scan belongs to which mask; only names are read
    fingerprint.measure_case(files)    one read of scan and mask; everything that is reported of them later
    lint.lint(data_set, facts)         what is wrong, and what to do about it
    statistics.summarise_data_set(...) the figures
    store.prepare(data_set, folder)    facts and slices on disk, memory-mapped from then on
    split.split_cases(cases)           which cases are trained on, which are held out

No torch, no database, no pages here.
"""
