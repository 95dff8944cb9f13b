"""Training: one optimizer step repeated, and all that keeps a run safe while it repeats.

Read in this order: `trainer` (the loop), `schedules`, `optimizers` and `groups` (what a step does to the
parameters), `validation` (what is measured), `precision` and `seeding` (device, number format,
random numbers), `checkpoint` and `run_folder` (what lies on disk).
"""
