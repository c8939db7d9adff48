"""`oubli select`: which columns of a table explain one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.registry.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from rich.console import Console

    from oubli.components.lfoci import Selection


# Each parameter is an option of the command.
def select(
    table: Annotated[Path, typer.Argument(help="Parquet or CSV file.", show_default=False)],
    target: Annotated[str, typer.Option(help="Column to explain.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(help="Write the selection to this Parquet file.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the scores to this file: .png, .svg or .pdf.", show_default=False)
    ] = None,
    max_columns: Annotated[
        int | None, typer.Option(min=1, help="Stop at this many columns.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise that breaks ties.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; every core without it.")] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda where there is a GPU.")] = "cpu",
) -> None:
    """Select the columns that explain a target: its Markov blanket, as far as the rows can tell.

    Numbers and truth values are candidates; other columns are left out and named.

    Example: oubli select measurements.parquet --target outcome --plot scores.png
    """
    import numpy as np
    from rich.console import Console

    from oubli.components.lfoci import l_foci

    console = Console()
    rows = _read(table)
    names, left_out = _candidates(rows, table, target)
    if left_out:
        console.print(f"Left out, as they are not numbers: {', '.join(left_out)}.", soft_wrap=True, highlight=False)
    values = np.empty((rows.num_rows, len(names)))
    for index, name in enumerate(names):
        values[:, index] = _numbers(rows, name)
    selection = l_foci(
        values,
        _numbers(rows, target),
        generator=np.random.default_rng(seed),
        max_columns=max_columns,
        threads=threads,
        device=device,
    )
    _show(console, selection, names, target)
    if output is not None:
        _write(output, selection, names, target, seed)
        console.print(f"Written: {output}", soft_wrap=True)
    if plot is not None:
        _draw(plot, selection, names, target)
        console.print(f"Drawn: {plot}", soft_wrap=True)


def _candidates(rows: pa.Table, path: Path, target: str) -> tuple[list[str], list[str]]:
    """The columns to choose among, and those that are left out for not being numbers."""
    if rows.column_names.count(target) != 1:
        raise ConfigurationError(
            f"{path} has no single column {target!r}.", remedy=f"Its columns: {', '.join(rows.column_names)}."
        )
    if not _is_number(rows, target):
        raise ConfigurationError(
            f"Target {target!r}: expected numbers, found {rows.schema.field(target).type}.",
            remedy="Encode it as a number first.",
        )
    others = [name for name in rows.column_names if name != target]
    usable = [name for name in others if _is_number(rows, name)]
    return usable, [name for name in others if name not in usable]


def _read(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv, parquet

    readers = {".parquet": parquet.read_table, ".csv": csv.read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigurationError(
            f"{path}: expected a file named .parquet or .csv.", remedy="Convert the table to one of them."
        )
    try:
        return reader(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.", remedy="Check the path.") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{path} cannot be read as {path.suffix[1:].upper()}: {error}", remedy="Write it again."
        ) from error


def _is_number(rows: pa.Table, name: str) -> bool:
    import pyarrow as pa

    kind = rows.schema.field(name).type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _numbers(rows: pa.Table, name: str) -> NDArray[np.float64]:
    import numpy as np
    import pyarrow as pa

    column = rows.column(name)
    found = f"{column.null_count} missing"
    if column.null_count == 0:
        numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
        if np.isfinite(numbers).all():
            return numbers
        found = "NaN or infinity"
    raise NonFiniteInput(
        f"Column {name!r}: expected a finite number in every row, found {found}.",
        remedy="Fill the gaps, or leave out the rows or the column.",
    )


def _show(console: Console, selection: Selection, names: list[str], target: str) -> None:
    from rich.table import Table

    shown = Table(title=f"Columns that explain {target}", title_justify="left", title_style="bold")
    shown.add_column("Step", justify="right")
    shown.add_column("Column", overflow="fold")
    shown.add_column("Score", justify="right")
    for step, (column, score) in enumerate(zip(selection.order, selection.scores, strict=True), start=1):
        shown.add_row(str(step), names[column], f"{score:.4f}")
    console.print(shown)
    console.print(
        "Score: the part of what is still unexplained that the column explains, beside those above it (0 to 1)."
    )
    left = "" if selection.stop_score is None else f" (the best column left would score {selection.stop_score:.4f})"
    console.print(f"Stopped: {selection.stop}{left}.")
    if selection.constant:
        constant = ", ".join(names[column] for column in selection.constant)
        console.print(f"Set aside, as they do not vary: {constant}.", soft_wrap=True, highlight=False)


def _write(path: Path, selection: Selection, names: list[str], target: str, seed: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    chosen = pa.table(
        {
            "step": pa.array(range(1, len(selection.order) + 1), pa.int64()),
            "column": pa.array([names[column] for column in selection.order], pa.string()),
            "score": pa.array(selection.scores, pa.float64()),
        }
    )
    facts = {
        "target": target,
        "stop": selection.stop.value,
        "stop_score": "" if selection.stop_score is None else repr(selection.stop_score),
        "noise_scale": repr(selection.noise_scale),
        "seed": str(seed),
    }
    try:
        parquet.write_table(chosen.replace_schema_metadata(facts), path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}", remedy="Check its folder and its rights.") from error


def _draw(path: Path, selection: Selection, names: list[str], target: str) -> None:
    try:
        # Figure, not pyplot: no window and no state that outlives the command.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(
            "--plot needs matplotlib, which is not installed.", remedy="pip install 'oubli[demo]'"
        ) from error

    figure = Figure(figsize=(7, 1.2 + 0.3 * max(1, len(selection.order))), layout="constrained")
    axes = figure.subplots()
    axes.barh([names[column] for column in selection.order], selection.scores, color="#3b6ea5")
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("score: part of what was unexplained that the column explains")
    axes.set_title(f"Columns that explain {target}, in the order taken", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be drawn: {error}", remedy="End it in .png, .svg or .pdf.") from error
