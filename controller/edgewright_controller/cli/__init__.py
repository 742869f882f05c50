"""The command `edgewright`: one file for each verb, nothing but flags, calls and printing.

Exit codes: 0 done, 1 failed, 2 bad input. Errors are one line on standard error, without a traceback.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from edgewright_contract import __version__
from edgewright_controller.cli import (
    apply,
    audit,
    backup,
    builds,
    bundle,
    demo,
    devices,
    enroll,
    gc,
    history,
    keys,
    login,
    mandate,
    models,
    operator,
    plan,
    releases,
    revoke,
    rollback,
    rollout,
    schema,
    serve,
    status,
    tail,
)
from edgewright_controller.cli.ending import FAILED, INTERRUPTED, Ending

# gRPC reads this once, when it is imported. Its own lines on standard error are for those who work on gRPC; what an
# operator must know, our errors say. Whoever sets the variable gets them back.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

app = typer.Typer(
    name="edgewright",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"edgewright {__version__}\n")
        raise typer.Exit


@app.callback()
def edgewright(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Compile, check, sign, roll out and serve language models on fleets of edge devices, from one manifest."""


app.command("serve")(serve.serve)
app.command("plan")(plan.plan)
app.command("apply")(apply.apply)
app.command("status")(status.status)
app.command("rollback")(rollback.rollback)
app.command("tail")(tail.tail)
app.command("login")(login.login)
app.command("whoami")(login.whoami)
app.command("history")(history.history)
app.command("audit")(audit.audit)
app.command("schema")(schema.schema)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("gc")(gc.gc)
app.command("demo")(demo.demo)
app.add_typer(devices.app, name="devices")
app.add_typer(rollout.app, name="rollout")
app.add_typer(builds.app, name="builds")
app.add_typer(releases.app, name="releases")
app.add_typer(models.app, name="models")
app.add_typer(enroll.app, name="enroll")
app.add_typer(revoke.app, name="revoke")
app.add_typer(keys.app, name="keys")
app.add_typer(operator.app, name="operator")
app.add_typer(mandate.app, name="mandate")
app.add_typer(bundle.app, name="bundle")


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that lacks a sign shows another, and no traceback
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _say(f"standard output: {error.strerror}", FAILED)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line; its exit code. Messages go to standard error."""
    try:
        code = app(arguments, prog_name="edgewright", standalone_mode=False)
    except Ending as ending:
        return _say(str(ending), ending.code)
    except TyperException as error:
        return _say(_words(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return FAILED  # whoever read has heard enough
    except OSError as error:
        return _say(f"{error.filename or 'standard output'}: {error.strerror}", FAILED)
    return code if isinstance(code, int) else 0


def _words(error: TyperException) -> str:
    """What is wrong with the command line, and where to read on; empty when the help itself was printed."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    return f"{message} (see {context.command_path} --help)" if message and context is not None else message


def _say(message: str, code: int) -> int:
    for line in message.splitlines():
        sys.stderr.write(f"edgewright: {line}\n")
    return code
