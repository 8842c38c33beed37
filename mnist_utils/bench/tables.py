"""A measurement's tables as text, its columns aligned; nothing here needs torch."""

import statistics

RATIOS = (
    ("usual", "ours"),
    ("usual, augmented", "ours, augmented"),
    ("ours", "floor"),
    ("ours, before tuning", "ours"),
    ("ours", "ours, amp"),
)


def aligned(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is flush left and whose others are flush right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def loop(result: dict) -> str:
    """Ratios turn by turn, then the seconds that they are made of."""
    seconds = result["seconds"]
    ratios = {
        f"{over} / {under}": [a / b for a, b in zip(seconds[over], seconds[under])]
        for over, under in RATIOS
        if over in seconds and under in seconds
    }
    tables = [
        _spread("ratio in one run", ratios),
        _spread("seconds an epoch of 60,000 images", seconds),
    ]
    return "\n\n".join(tables)


def target(result: dict) -> str:
    """Seconds of whole trainings, what they reach, and the usual loop's seconds as a multiple."""
    rows = []
    for cores, found in result["cores"].items():
        ours, usual = (
            found["seconds"],
            [result["usual_epochs"] * epoch for epoch in found["usual_epoch_seconds"]],
        )
        ratios = [a / b for a, b in zip(usual, ours)]
        passed = sum(accuracy >= result["target"] for accuracy in found["accuracies"])
        spread = f"{statistics.stdev(ours):.1f}" if len(ours) > 1 else ""
        accuracy = f"{statistics.mean(found['accuracies']):.3%}"
        cells = [f"{statistics.mean(ours):.1f}", spread, accuracy, f"{passed} of {len(ours)}"]
        rows.append(
            [cores, *cells, f"{statistics.mean(usual):.1f}", f"{statistics.mean(ratios):.2f}"]
        )
    goal = f"at {result['target']:.2%}"
    head = [
        "cores",
        "seconds",
        "sd",
        "mean accuracy",
        goal,
        f"usual, {result['usual_epochs']} epochs",
        "usual / ours",
    ]
    return aligned(head, rows)


def threads(result: dict) -> str:
    """Milliseconds a step in each situation, and the default as a multiple of the best fixed number."""
    names = list(next(iter(result["situations"].values())))
    rows = []
    for situation, found in result["situations"].items():
        medians = {name: 1000 * statistics.median(found[name]) for name in names}
        best = min(value for name, value in medians.items() if name != "default")
        cells = [f"{medians[name]:.1f}" for name in names]
        rows.append([situation, *cells, f"{medians['default'] / best:.2f}"])
    return aligned(["milliseconds a step", *names, "default / best fixed"], rows)


def batch(result: dict) -> str:
    """The throughput of every turn against bare trainings, then what a job is made of."""
    workers = result.get("workers", 4)
    ratios = [bare / batch for bare, batch in zip(result["bare"], result["batch"])]
    each = workers * sum(result["batch"]) / result["jobs"]
    known = {
        name: statistics.mean(part[name] for part in result["parts"]) for name in result["parts"][0]
    }
    known["start of the workers, saving, page"] = each - sum(known.values())
    known["all of it"] = each
    rows = [[name, f"{seconds:.1f}", f"{seconds / each:.0%}"] for name, seconds in known.items()]
    rows.append(
        ["the same training, bare", f"{workers * sum(result['bare']) / result['jobs']:.1f}", ""]
    )
    title = f"{result['jobs']} runs of {result['epochs']} epochs, {workers} at a time"
    throughput = _spread("throughput against bare trainings", {"batch / bare": ratios})
    return "\n\n".join(
        [title, throughput, aligned(["seconds of one job, mean", "", "share"], rows)]
    )


def scheduling(result: dict) -> str:
    """Milliseconds a job."""
    counts = list(result["dask"])
    rows = []
    for name, label in (
        ("dask", "Dask: submit, schedule, fetch"),
        ("ours", "plan, look whether done, summary"),
    ):
        cells = [f"{1000 * seconds / int(count):.2f}" for count, seconds in result[name].items()]
        rows.append([label, *cells])
    return aligned(["milliseconds a job", *(f"{int(count):,} jobs" for count in counts)], rows)


def paired(result: dict) -> str:
    """Mean holdout accuracy of each variant and its difference from ours, with a 95% interval (Student's t)."""
    from scipy.stats import t

    ours, rows = result["accuracies"]["ours"], []
    for name, accuracies in result["accuracies"].items():
        differences = [100 * (a - b) for a, b in zip(accuracies, ours)]
        half = t.ppf(0.975, len(ours) - 1) * statistics.stdev(differences) / len(ours) ** 0.5
        change = "" if name == "ours" else f"{statistics.mean(differences):+.3f} ± {half:.3f}"
        rows.append(
            [
                name,
                f"{statistics.mean(accuracies):.3%}",
                f"{100 * statistics.stdev(accuracies):.3f}",
                change,
            ]
        )
    return aligned(
        ["variant", "mean holdout accuracy", "sd (points)", "difference from ours (points, 95%)"],
        rows,
    )


def _spread(title: str, rows: dict[str, list[float]]) -> str:
    cells = [
        [
            name,
            *(f"{value:.2f}" for value in (statistics.median(row), min(row), max(row))),
            str(len(row)),
        ]
        for name, row in rows.items()
    ]
    return aligned([title, "median", "least", "most", "n"], cells)
