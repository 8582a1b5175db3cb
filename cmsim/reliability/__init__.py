"""A long job on a machine whose parts fail: failures as drawn or recorded, repair, checkpoints, and what is left.

Failures come by the clock, whatever the job does, so that every draw of a job is columns: failures of all draws in a
row, stretches between them, work in each. Nothing is played event by event, and times are whole microseconds.

    causes.py      rates of a scenario and its file, counted in a machine
    draw.py        lives of parts as failures of many draws        replay.py   faults as recorded, on hosts of a job
    events.py      what both give                                  outages.py  when hosts are missing, steps slow
    checkpoint.py  how often one is best, closed forms              saving.py   how large and long one is in a scenario
    job.py         what a job makes of it
    slowdown.py    steps simulated with faults in the system
    measure.py     metrics and frames                              execute.py  a run of the kind, from spec to result
"""
