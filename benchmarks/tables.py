"""The figures as text, ratios first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


def machine_table(machine: dict) -> str:
    """What was measured on, in a few lines."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    family, model = machine["processor_family_model"]
    ignored = " ".join(f"{key}={value}" for key, value in machine["settings_left_out"].items())
    return (f"{machine['processor']} (family {family}, model {model}), {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB; {machine['system']}\n"
            f"Python {machine['python']}, {packages}\n{machine['compiler']}"
            + (f"\nSettings of the environment that are left out: {ignored}" if ignored else ""))


def comparison_table(result: dict) -> str:
    """How many times the others' speed the fused network has, then the figures themselves."""
    names = result["contenders"]
    others = [name for name in names if name != "fused"]
    shapes = result["shapes"]

    def rows(figures: Iterable[Sequence[str]]) -> list[list[str]]:
        return [[f"{shape['units']}", f"{shape['sentences']}", *row]
                for shape, row in zip(shapes, figures)]

    def each(key: str, form: str) -> list[list[str]]:
        return rows([form.format(shape["results"][name][key]) for name in names]
                    for shape in shapes)

    parts = [
        "Speed of fused as a multiple of the others', medians",
        _aligned(["units", "sentences", *others],
                 rows([f"{_speed(shape, 'fused') / _speed(shape, name):.2f}" for name in others]
                      for shape in shapes)),
        "Share of the rate of sgemm, over all products of a step",
        _aligned(["units", "sentences", *names], each("share_of_sgemm", "{:.0%}")),
        "Share of the rate of sgemm, over the products of the forward pass alone",
        _aligned(["units", "sentences", *names], each("share_of_sgemm_forward", "{:.0%}")),
        "Tokens per second",
        _aligned(["units", "sentences", *names], each("tokens_per_second", "{:,.0f}")),
        "Rate of sgemm, GFLOP/s",
        _aligned(["units", "sentences", "all products", "forward"],
                 rows([f"{shape['sgemm'][key]:.0f}" for key in ("gflops", "gflops_forward")]
                      for shape in shapes)),
        "Peak memory of the process, MB",
        _aligned(["units", "sentences", *names], each("peak_memory_mb", "{:,.0f}")),
    ]
    if "torch-one-hot" not in names:
        parts.append("PyTorch is not installed ('make bench' does): its columns are left out.")
    return "\n".join(parts)


def _speed(shape: dict, name: str) -> float:
    return shape["results"][name]["tokens_per_second"]


def card_table(result: dict) -> str:
    """What it was measured on, then a line for each size and precision."""
    device, pieces = result["device"], result["pieces"]
    names = list(pieces[0]["results"])
    others = [name for name in names if name != "training"]
    versions = ", ".join(f"{name} {version}" for name, version in device["versions"].items())

    def rows(form: Callable[[dict, dict], Sequence[str]]) -> list[list[str]]:
        return [[f"{piece['units']}", piece["precision"], *form(piece, piece["results"])]
                for piece in pieces]

    def figure(result: dict, key: str, form: str) -> str:
        return "-" if result.get(key) is None else form.format(result[key])

    head, first = ["units", "precision"], pieces[0]
    return "\n".join([
        f"{device['device']}; {versions}",
        f"{first['sentences']} sentences of {first['steps']} steps, {first['vocabulary']:,} words; "
        f"{first['window']} micro-batches a window\n",
        "Speed of training as a multiple of the others', and its share of the rate of the products",
        _aligned([*head, *others, "share", "products, GFLOP/s"], rows(
            lambda piece, results: [
                *(f"{_speed(piece, 'training') / _speed(piece, name):.2f}" for name in others),
                f"{results['training']['share_of_products']:.0%}",
                f"{piece['products']['gflops']:,.0f}"])),
        "Tokens per second",
        _aligned([*head, *names], rows(lambda piece, results: [
            f"{_speed(piece, name):,.0f}" for name in names])),
        "A micro-batch alone: ms until the call returns / until the device is done; kernels",
        _aligned([*head, *names], rows(lambda piece, results: [
            f"{results[name]['queued_ms']:.2f} / {results[name]['done_ms']:.2f}; "
            + figure(results[name], "kernels", "{}") for name in names])),
        "Peak memory on the card, MB; the last columns are those of an update",
        _aligned([*head, *names, "apply", "apply, ms"], rows(lambda piece, results: [
            *(figure(results[name], "peak_memory_mb", "{:,.0f}") for name in names),
            figure(results["training"], "peak_memory_of_apply_mb", "{:,.0f}"),
            f"{results['training']['apply_ms']:.2f}"])),
    ])


def breakdown_table(result: dict) -> str:
    """A line a part."""
    total = sum(part["milliseconds"] for part in result["parts"].values())
    return (f"{result['units']} units, {result['sentences']} sentences of {result['steps']} steps\n"
            + _aligned(["part", "ms", "share", "GFLOP/s"], [
                [name, f"{part['milliseconds']:.1f}", f"{part['milliseconds'] / total:.0%}",
                 f"{part['gflops']:.0f}" if "gflops" in part else ""]
                for name, part in result["parts"].items()]))


def compile_table(result: dict) -> str:
    """Seconds until the functions are there; the cache of compiled code empty, or full."""
    states = list(next(iter(result.values())))
    table = _aligned(["seconds of import and compilation", *states],
                     [[name, *(f"{seconds[state]:.1f}" for state in states)]
                      for name, seconds in result.items()])
    return table if "cold" in states else f"{table}\nA quick run leaves out cold compilation."


def growth_table(result: dict) -> str:
    """One line a point."""
    parts = []
    for name in ("units", "sentences", "steps"):
        parts.append(_aligned([name, "tokens/s", "GFLOP/s", "MB"], [
            [f"{p[name]}", f"{p['tokens_per_second']:,.0f}", f"{p['gflops']:.0f}",
             f"{p['peak_memory_mb']:,.0f}"] for p in result[name]]))
    parts.append(_aligned(
        ["corpus, sentences", "text MB", "shards MB", "preparing s", "preparing MB",
         "training MB"],
        [[f"{p['sentences']:,}", f"{p['bytes'] / 1e6:.1f}", f"{p['shard_bytes'] / 1e6:.1f}",
          f"{p['preparation_seconds']:.1f}", f"{p['preparation_peak_memory_mb']:,.0f}",
          f"{p['training_peak_memory_mb']:,.0f}"] for p in result["corpus"]]))
    return "\n".join(parts)


def preparation_table(result: dict) -> str:
    """One sentence."""
    all_seconds = ", ".join(f"{seconds:.1f}" for seconds in result["all_seconds"])
    return (f"{result['corpus']} ({result['bytes'] / 1e6:.0f} MB) to shards with "
            f"{result['workers']} workers: {result['seconds']:.1f} s (median of {all_seconds}), "
            f"at most {result['peak_memory_mb']:,.0f} MB")


def files_table(result: dict) -> str:
    """A row for each number of files."""
    return _aligned(("files", "first, s", "unchanged, s"), [
        (f"{row['files']:,}", f"{row['seconds']:.1f}", f"{row['unchanged_seconds']:.1f}")
        for row in result["rows"]])


def looks_table(result: dict) -> str:
    """A row for each number of parts."""
    return _aligned(("parts", "processor, s", "clock, s"), [
        (f"{row['parts']:,}", f"{row['processor_seconds']:.2f}", f"{row['seconds']:.2f}")
        for row in result["rows"]])


def corpora_table(result: dict) -> str:
    """A row for each corpus, then a row for each of its stages."""
    rows = result["rows"]
    head = _aligned(("sentences", "parts", "GB", "all, s", "unchanged, s", "peak of all, MB"), [
        (f"{row['sentences']:,}", f"{row['parts']:,}", f"{row['bytes'] / 1e9:.2f}",
         f"{row['seconds']:.0f}", f"{row['unchanged_seconds']:.1f}",
         f"{row['peak_memory_mb']:,.0f}") for row in rows])
    return (f"{result['workers']} workers\n" + head
            + "Seconds of a stage's processes together, growth from the first corpus, MB of one\n"
            + _aligned(("sentences", "stage", "seconds", "growth", "peak, MB"), [
                (f"{row['sentences']:,}", stage, f"{each['seconds']:.1f}",
                 f"{each['seconds'] / max(1e-9, rows[0]['stages'][stage]['seconds']):.2f}",
                 f"{each['peak_memory_mb']:,}")
                for row in rows for stage, each in row["stages"].items()]))


def checkpoints_table(result: dict) -> str:
    """A line for writing, and one for publishing."""
    head = (f"{result['units']:,} units, {result['vocabulary']:,} words, Adam: a checkpoint of "
            f"{result['checkpoint_mb']:,.0f} MB, a model of {result['model_mb']:,.0f} MB\n")
    return head + _aligned(["", "seconds", "MB added to the peak"], [
        [name, f"{result[f'{name}_seconds']:.1f}", f"{result[f'{name}_added_mb']:,.0f}"]
        for name in ("writing", "publishing")])


def processes_table(result: dict) -> str:
    """A line for each size: two processes beside one, and their sum beside MPI's own."""
    return "Two processes of one thread beside one of one thread, medians\n" + _aligned(
        ["units", "sentences", "speed-up", "seconds of one", "of two", "sum", "apply", "sums, MB",
         "sum, GB/s", "Allreduce, GB/s"],
        [[f"{size['units']:,}", f"{size['sentences']:,}", f"{size['speedup']:.2f}",
          f"{size['1']['seconds']:.3f}", f"{size['2']['seconds']:.3f}",
          f"{size['2']['sum']:.4f}", f"{size['2']['apply']:.4f}", f"{size['megabytes']:,.1f}",
          f"{size['2']['sum_rate'] / 1e9:.2f}", f"{size['2']['allreduce_rate'] / 1e9:.2f}"]
         for size in result["sizes"]]) + (
        "Efficiency of hosts as this process of one thread, reckoned as docs/clusters.md says; the "
        "balance of their loads is "
        + ", ".join(f"{each:.2f} of {count}" for count, each in result["balance"].items()) + "\n"
        + _aligned(["units", "network", *(f"{count} hosts" for count in result["balance"])], [
            [f"{size['units']:,}", name, *(f"{each:.2f}" for each in found.values())]
            for size in result["sizes"] for name, found in size["efficiency"].items()]))


def apply_table(result: dict) -> str:
    """A line an update; before them the rate of the memory."""
    rates = ", ".join(f"{name} {rate / 1e9:.1f} GB/s" for name, rate in result["stream"].items())
    return (f"{result['units']:,} units, {result['vocabulary']:,} words: "
            f"{result['parameters'] / 1e6:,.1f} million weights; the memory's rate: {rates}\n"
            + _aligned(["update", "ms", "GB/s", "share"], [
                [update["optimiser"] + (", norm bounded" if update["max_norm"] else ""),
                 f"{1000 * update['seconds']:,.1f}",
                 f"{update['bytes'] / update['seconds'] / 1e9:.1f}", f"{update['share']:.0%}"]
                for update in result["updates"]]))


def vocabularies_table(result: dict) -> str:
    """What preparing takes, then a line for each network that was trained."""
    return (f"{result['sentences']:,} synthetic sentences ({result['bytes'] / 1e6:.0f} MB)\n"
            + _aligned(["words", "preparing, s", "MB", "to the report, s", "next run, s"], [
                [f"{row['words']:,}", f"{row['seconds']:.1f}", f"{row['peak_memory_mb']:,.0f}",
                 f"{run['rest']:.1f}", f"{run['next']:.1f}"]
                for row, run in zip(result["prepared"], result["runs"])])
            + "Training: gathering, accumulate, apply and validation\n"
            + _aligned(["words", "units", "tokens/s", "share of sgemm", "MB"], [
                [f"{row['words']:,}", f"{row['units']}", f"{row['tokens_per_second']:,.0f}",
                 f"{row['share']:.0%}", f"{row['peak_memory_mb']:,.0f}"]
                for row in result["trained"]]))


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    return "\n".join("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths))
                     for row in [head, *rows]) + "\n"
