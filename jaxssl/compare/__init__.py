"""All experiments at one compute budget, in one table beside their controls.

`python -m jaxssl.compare` runs them (`runs`), each in a process of its own (`one`) for as many
steps as its encoder passes allow (`budget`), and makes the README's table and figure (`render`).

With workdirs as arguments it puts finished runs side by side instead (`side_by_side`).
"""
