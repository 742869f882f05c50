"""`edgewright models`: what was compiled of each model, how good and how fast it is, and how it was made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgewright_controller.cli import named, reach
from edgewright_controller.cli.ending import BAD_INPUT, FAILED, Ending

app = typer.Typer(help="List, show and compare what was compiled of models.", no_args_is_help=True)


@app.command("list")
def list_(
    config: reach.ConfigFlag = None, controller: reach.ControllerFlag = None, as_json: reach.JsonFlag = False
) -> int:
    """Show the models of which there are builds."""
    from edgewright_controller.cli import model_pages, printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.models()
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(model_pages.listed(answer))
    return 0


@app.command("show")
def show(
    model: named.ModelArgument,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show the report cards of all that was built of a model, also of what was refused, and why."""
    from edgewright_controller.cli import model_pages, printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.model(model)
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(model_pages.shown(answer))
    return 0


@app.command("compare")
def compare(
    model: named.ModelArgument,
    *,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="draw it into this file, a .png, .svg or .html", dir_okay=False)
    ] = None,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Compare what was built of a model by size, divergence and speed, and mark what no other build beats."""
    from edgewright_controller.cli import model_comparison, model_plot, printing

    if plot is not None:
        model_plot.check(plot)
    with reach.fleet(config, controller) as fleet:
        answer = fleet.model(model)
    found = model_comparison.comparison(answer)
    if plot is not None:
        if not found.points:
            raise Ending(f"models compare {model}: no build of it has a report card to draw", FAILED)
        model_plot.write(found, plot)
    if as_json:
        printing.json_document(found.to_json())
    else:
        printing.out().print(model_comparison.table(found))
        if plot is not None:
            sys.stdout.write(f"drawn into {plot}\n")
    return 0


@app.command("provenance")
def provenance(
    artifact: Annotated[
        str,
        typer.Argument(help="the artifact or the release, by its digest or the beginning of it; or a model's name"),
    ],
    *,
    out: Annotated[Path | None, typer.Option("--out", help="write the statement here", dir_okay=False)] = None,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
) -> int:
    """Print or export how an artifact was made: an in-toto statement, whose digest is signed with the artifact."""
    from edgewright_controller.cli import printing, provenance_pages
    from edgewright_controller.quality import provenance as statements

    with reach.fleet(config, controller) as fleet:
        models = {one.model for one in fleet.models().models}
        wanted = _only_artifact(fleet.model(artifact), artifact) if artifact in models else artifact
        answer = fleet.provenance(wanted)
    try:
        found = statements.parse(answer.statement, answer.sha256)
    except statements.ProvenanceError as error:
        raise Ending(f"artifact {answer.artifact[:12]}: {error}", FAILED) from error
    if found.artifact != answer.artifact:
        raise Ending(f"artifact {answer.artifact[:12]}: the statement is about {found.artifact[:12]}", FAILED)
    if out is None:
        printing.out().print(provenance_pages.shown(found, answer.sha256))
        return 0
    try:
        out.write_bytes(answer.statement)
    except OSError as error:
        raise Ending(f"--out {out}: {error.strerror}", FAILED) from error
    sys.stdout.write(f"{out}: in-toto statement of artifact {answer.artifact[:12]}, sha256 {answer.sha256}\n")
    return 0


def _only_artifact(answer: object, model: str) -> str:
    from edgewright_controller.cli import model_pages

    found = [line for line in model_pages.lines(answer) if line.build.provenance and not line.build.refused]  # type: ignore[arg-type]
    if len(found) == 1:
        return found[0].build.artifact
    if not found:
        raise Ending(f"models provenance {model}: none of its artifacts has provenance", FAILED)
    named_ones = "\n".join(f"    {line.build.artifact[:12]}  {line.name}" for line in found)
    raise Ending(f"models provenance {model}: it has {len(found)} artifacts; name one:\n{named_ones}", BAD_INPUT)
