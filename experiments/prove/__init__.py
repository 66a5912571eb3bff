"""Does what makes a method help? Each experiment against controls that lack it, seed by seed.

An experiment says in Python what proves it:

    CONTROLS = {"no_regulariser": {"losses.sigreg.weight": 0.0}}   # what each changes
    PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)    # the metric that counts

  python -m experiments.prove NAME[:PRESET] ... [--seeds=3|0,2] [--only=ARM,ARM]
      [--controls=NAME,NAME] [--minutes=N] [--workdir=DIR]         # "all" is every experiment
  python -m experiments.prove --write | --check                    # experiments/README.md

An *arm* is the method or one of its controls, a *cell* one arm at one seed. A finished cell is on
record in `experiments/records/proofs.json` and is not run again, unless its config has changed; one
that was cut short goes on from its last checkpoint. All seeds of an arm share one compilation.
"""
