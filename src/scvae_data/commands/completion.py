"""``scvae-data completion``: the commands in, a script out by which a shell completes them when the tab key is hit.

The words of a command are in the script. What follows ``process`` and ``train`` Hydra knows, which is asked.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

from scvae_data.commands.arguments import Parser

__all__ = ["script"]

SCRIPT = r"""# eval "$(scvae-data completion @SHELL@)" in ~/.@SHELL@rc
_scvae_data() {
    local line=${COMP_LINE:0:$COMP_POINT} first=${COMP_WORDS[1]} program found candidate split
    local word=${line##* }
    COMPREPLY=()
    case ${COMP_WORDS[0]##*/} in
        python*)
            case $first in
                process.py|train.py|*/process.py|*/train.py) program=("${COMP_WORDS[0]}" "$first") ;;
                *) [[ -n ${_scvae_data_before-} ]] && $_scvae_data_before "$@"; return ;;
            esac ;;
        *)
            case $first in
                process|train) program=(scvae-data "$first") ;;
            esac ;;
    esac
    if [[ $COMP_CWORD -eq 1 ]]; then
        found=(@COMMANDS@)
    elif [[ -n ${program-} && $word == -* ]]; then
        found=(--help --multirun --cfg --config-dir --info --hydra-help)
    elif [[ -n ${program-} ]]; then
        local -x COMP_LINE="scvae-data ${line#*"$first"}"
        local -x COMP_POINT=${#COMP_LINE}
        found=($("${program[@]}" -sc query=bash 2>/dev/null))
    else
        case $first in
@CASES@
            *) found=() ;;
        esac
    fi
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
# What follows "python process.py" and "python train.py" too; other scripts keep what completes them.
PYTHON = {
    "bash": r"""
declare -F _completion_loader >/dev/null && _completion_loader python
_scvae_data_before=$(complete -p python 2>/dev/null | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
complete -o nospace -o bashdefault -o default -F _scvae_data python python3""",
    "zsh": r"""
_scvae_data_before=${_comps[python]:-_default}
_scvae_data_python() {
    case ${words[2]} in
        process.py|train.py|*/process.py|*/train.py) _bash_complete -o nospace -o default -F _scvae_data ;;
        *) $_scvae_data_before ;;
    esac
}
compdef _scvae_data_python python python3""",
}
ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"  # its own, and what runs bash's


def script(shell: str, commands: Mapping[str, Callable[[Parser], None] | None]) -> str:
    """Return the script for a shell.

    Parameters
    ----------
    shell
        ``"bash"``, or ``"zsh"``, which runs bash's after two functions of its own.
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
    text = SCRIPT.replace("@SHELL@", shell).replace("@COMMANDS@", " ".join([*commands, "--help", "--version"]))
    return (ZSH if shell == "zsh" else "") + text.replace("@CASES@", "\n".join(cases)) + PYTHON[shell]


def words(parser: Parser) -> list[str]:
    """Return the options of a command, and the values that it can only have."""
    found: list[str] = []
    for action in parser._actions:
        found += [option for option in action.option_strings if option.startswith("--")]
        found += map(str, action.choices or ())
    return found
