"""All experiments at one compute budget, in one table beside their controls.

`python -m experiments.equal_compute` runs them (`runs`), each in a process of its own (`one`) for
as many steps as its encoder passes allow (`budget`), and puts them on record; `render` makes a
table and a figure of the record, for `experiments/README.md`.
"""
