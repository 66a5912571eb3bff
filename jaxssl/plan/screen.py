"""A plan's record as the rows of a screen."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxssl.report import human

Sections = list[tuple[str, Sequence[tuple[str, Any]]]]


def sections(name: str, record: Mapping[str, Any]) -> Sections:
    """The rows for `jaxssl.report.progress.screen`."""
    found: Sections = [
        ("run", _run(name, record)),
        ("bytes per device", _memory(record["memory"])),
        ("FLOPs per step", _flops(record)),
        ("sent per device", _collectives(record["collectives"])),
    ]
    if record["bound"]:
        found += [("roofline", _bound(record)), ("at that rate", _rate(record["run"]))]
    else:
        found.append(("roofline", [("none", "no public figures of this kind of device")]))
    return found


def _run(name: str, record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    topology = record["topology"]
    mesh = ", ".join(f"{axis} {n}" for axis, n in record["mesh"].items())
    size = (
        f"{topology['chips']:,} chips, {topology['devices']:,} devices, {topology['hosts']} hosts"
    )
    rows = [("config", name), ("topology", f"{topology['name']}: {size}"), ("mesh", mesh)]
    if topology["chip"]:
        c = topology["chip"]
        rates = f"{human.flops(c['flops'])}/s bfloat16, HBM {human.size(c['hbm'])}/s"
        rows.append(("chip", f"{rates}, links {human.size(c['ici'])}/s one way"))
        rows.append(("figures", c["source"]))
    batch = f"{record['global_batch']:,} in {record['microbatches']} microbatches"
    rows.append(("global batch", f"{batch}, {record['precision']}"))
    rows.append(("compiled in", human.duration(record["compile_seconds"])))
    return rows


def _memory(memory: Mapping[str, Any]) -> list[tuple[str, Any]]:
    names = {
        "params": "params",
        "optimizer": "optimizer moments",
        "teachers": "teachers",
        "extra": "extra",
        "batch": "batch",
        "temporaries": "activations, temporaries",
        "code": "code",
    }
    rows = [(text, human.size(memory[name])) for name, text in names.items()]
    peak = human.size(memory["peak"])
    if memory["capacity"]:
        part = memory["peak"] / memory["capacity"]
        peak += f" of {human.size(memory['capacity'])} ({part:.0%})"
    return [*rows, ("peak", peak)]


def _flops(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    flops, devices = record["flops"], record["topology"]["devices"]
    rows = [
        ("model", f"{human.flops(flops['model'])} in matrix products of the traced step"),
        ("recomputed", f"{human.flops(flops['recomputed'])} to save memory, not in the model's"),
    ]
    executed = human.flops(flops["executed_per_device"] * devices)
    ratio = flops["executed_over_counted"]
    times = f", {ratio:.3f} of the two above" if ratio is not None else ""
    rows.append(("compiled", f"{executed} in products, loops multiplied{times}"))
    compiler = human.flops(flops["compiler_per_device"] * devices)
    rows.append(("compiler's", f"{compiler}: its own count, each loop's body once; not used here"))
    if flops["uncounted"]:
        names = ", ".join(f"{name} ({n})" for name, n in flops["uncounted"].items())
        rows.append(("not counted", names))
    return rows


def _collectives(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rows = [
        (kind, f"{human.size(x['bytes'])} in {x['count']:,} calls")
        for kind, x in found["by_kind"].items()
    ]
    rows.append(("all", human.size(found["bytes"])))
    if found["over_fsdp_minimum"] is not None:
        least = (
            f"{human.size(found['fsdp_minimum'])}: gather params twice and teachers once, scatter "
            "gradients once"
        )
        rows.append(("FSDP minimum", f"{least}; this is {found['over_fsdp_minimum']:.2f} times it"))
        for row in found["largest"][:3]:
            place = "/".join(row["source"].split("/")[-3:])
            rows.append(("largest", f"{human.size(row['bytes'])} {row['kind']}: {place}"))
    if found["unknown_loops"]:
        rows.append(
            ("counted once", f"loops of unknown length: {', '.join(found['unknown_loops'])}")
        )
    return rows


def _bound(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    bound = record["bound"]
    rows = [
        ("step", f"at least {_time(bound['seconds'])}, set by {bound['limit']}"),
        ("compute", f"{_time(bound['compute'])} at the bfloat16 peak"),
        ("memory", f"{_time(bound['memory'])} for {_traffic(record)}"),
        ("links", _time(bound["links"])),
        ("MFU", f"at most {bound['mfu']:.1%}, of the model's FLOPs"),
    ]
    return rows


def _time(seconds: float) -> str:
    """A duration, of tiny programs too."""
    return human.duration(seconds) if seconds >= 1e-3 else f"{1e6 * seconds:.3g} µs"


def _traffic(record: Mapping[str, Any]) -> str:
    return f"{human.size(record['traffic_per_device'])} (an estimate from the compiled program)"


def _rate(run: Mapping[str, Any]) -> list[tuple[str, Any]]:
    samples = human.count(run["samples_per_second_per_host"])
    rate = human.size(run["bytes_per_second_per_host"])
    hours = human.duration(3600 * run["hours"])
    return [
        ("input per host", f"{samples} samples/s, {rate}/s decoded"),
        ("steps", run["steps"]),
        ("run", f"{hours}, {run['chip_hours']:,.3g} chip-hours; at best"),
    ]
