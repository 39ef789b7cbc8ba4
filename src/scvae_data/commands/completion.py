"""``scvae-data completion``: the commands in, a script out by which a shell completes them when the tab key is hit.

The words of a command are in the script. What follows ``process`` and ``train`` Hydra knows, which is asked.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

from scvae_data.commands.arguments import Parser

__all__ = ["script"]

SCRIPT = r"""# eval "$(scvae-data completion bash)" in ~/.bashrc, or the same with zsh in ~/.zshrc
_scvae_data() {
    local line=${COMP_LINE:0:COMP_POINT} command=${COMP_WORDS[1]} found candidate split
    local word=${line##* }
    if [[ $COMP_CWORD -eq 1 ]]; then
        found=(@COMMANDS@)
    else
        case $command in
            process|train)
                case $word in
                    -*) found=(--help --multirun --cfg --config-dir --info --hydra-help) ;;
                    *)
                        local -x COMP_LINE="scvae-data ${line#*"$command"}"
                        local -x COMP_POINT=${#COMP_LINE}
                        found=($(scvae-data "$command" -sc query=bash 2>/dev/null)) ;;
                esac ;;
@CASES@
            *) found=() ;;
        esac
    fi
    COMPREPLY=()
    # bash completes what follows the last of the characters that it splits words at, zsh whole words.
    split=${word%"${word##*[=:]}"}
    [[ -n ${ZSH_VERSION-} ]] && split=
    for candidate in "${found[@]}"; do
        [[ $candidate == "$word"* ]] || continue
        [[ $candidate == *[=./] ]] || candidate+=" "
        COMPREPLY+=("${candidate#"$split"}")
    done
}
complete -o nospace -o bashdefault -o default -F _scvae_data scvae-data"""
ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"  # its own, and what runs bash's


def script(shell: str, commands: Mapping[str, Callable[[Parser], None] | None]) -> str:
    """Return the script for a shell.

    Parameters
    ----------
    shell
        ``"bash"``, or ``"zsh"``, which runs the same after two of its own functions.
    commands
        Name → what adds its arguments to a parser; None for those that Hydra reads.
    """
    cases = []
    for name, add in commands.items():
        if add is None:
            continue
        parser = Parser(name, "")
        add(parser)
        cases.append(f"            {name}) found=({' '.join(map(shlex.quote, words(parser)))}) ;;")
    text = SCRIPT.replace("@COMMANDS@", " ".join([*commands, "--help", "--version"]))
    return (ZSH if shell == "zsh" else "") + text.replace("@CASES@", "\n".join(cases))


def words(parser: Parser) -> list[str]:
    """Return the options of a command, and the values that it can only have."""
    found: list[str] = []
    for action in parser._actions:
        found += [option for option in action.option_strings if option.startswith("--")]
        found += map(str, action.choices or ())
    return found
