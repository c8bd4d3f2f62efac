"""`ratelimit completion`: what a shell reads to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what lets a shell complete the commands and options of ratelimit.

    \b
    Bash 4.4 or newer, in ~/.bashrc:
      eval "$(ratelimit completion bash)"
    Zsh, in ~/.zshrc after compinit:
      eval "$(ratelimit completion zsh)"
    Fish, once:
      ratelimit completion fish > ~/.config/fish/completions/ratelimit.fish
    """
    from ratelimit.cli import cli  # noqa: PLC0415 - that module knows this one by name only

    # Not its source(): for bash that starts a bash to see how old it is, and there may be none.
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}; use bash, zsh or fish")
    script = kind(cli, {}, "ratelimit", "_RATELIMIT_COMPLETE")
    click.echo(script.source_template % script.source_vars())
