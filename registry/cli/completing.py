"""The command `completion`: what makes a shell complete commands, models and adapters."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    r"""Print the script that makes SHELL complete commands, models and adapters.

    \b
    bash   eval "$(registry completion bash)"      in ~/.bashrc
    zsh    eval "$(registry completion zsh)"       in ~/.zshrc
    fish   registry completion fish | source       in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, "click has all three"
    click.echo(found(ctx.find_root().command, {}, "registry", "_REGISTRY_COMPLETE").source())
    return 0
