"""Faults provoked in small real runs, counted, and survived or not.

  python -m jaxssl.bench.faults [--faults=NAME,NAME] [--times=N] [--seed=S] [--steps=N]
                                [--json=FILE]

Each run is `python -m jaxssl.main` on the config beside this file, in processes of its own. A fault
comes at a moment drawn from the seed. Then the same command is run again, and its end is compared
bit for bit (the hash of the params, the evaluations, every row of metrics but those of speed) with
that of a run that nothing disturbed. What counts as survived is the docstring of each fault, which
the table shows, with the seconds from the second start to its first step. "soak", which is run only
where it is named, is one run of --steps steps instead, whose memory and open files are watched.

Programs are compiled once, into JAX_COMPILATION_CACHE_DIR where that is set.

With --json every trial is written once it is over, and those that the file holds are not repeated.
Needs Linux. The exit code is 1 where a fault was not survived.
"""
