"""The command line called in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from mata_interp.cli.app import app


def invoke(*arguments: object) -> str:
    """The standard output of a command that must succeed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout
