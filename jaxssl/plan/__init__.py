"""What a run would cost on chips that are not here: its real step, compiled ahead of time.

    python -m jaxssl.plan --config=experiments/lejepa.py:imagenet1k_vit_h14 --topology=v5e:16x16

The step is that of `jaxssl.program.Program`; neither the chips nor the data are needed.
"""
