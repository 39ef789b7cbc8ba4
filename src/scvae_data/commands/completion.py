"""``scvae-data completion``: the commands in, a script out by which a shell completes them when the tab key is hit.

The words of a command are in the script. After ``process`` and ``train`` it asks for what they have: of Hydra's
own completion each would offer the groups of the other, too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence

from scvae_data.calling import Program
from scvae_data.commands.arguments import Parser
from scvae_data.commands.settings import Key, groups_of, root_keys

__all__ = ["candidates", "script"]

IN_BRACKETS = re.compile(r" \([^)]*\)")
CHOICES = re.compile(r"[\w-]+(?: \| [\w-]+)+")
"""How the comment behind a key names all values that it can have."""
PLAIN = re.compile(r"(?!null$)[\w.+-]+")
OF_HYDRA = ("hydra.run.dir=", "hydra.sweep.dir=", "hydra.sweep.subdir=", "hydra.launcher.", "hydra/launcher=")

SCRIPT = r"""# eval "$(scvae-data completion @SHELL@)" in ~/.@SHELL@rc
_scvae_data() {
    local line=${COMP_LINE:0:$COMP_POINT} first=${COMP_WORDS[1]} asked program found candidate split
    local word=${line##* }
    COMPREPLY=()
    case ${COMP_WORDS[0]##*/} in
        python*)
            case $first in
                process.py|train.py|*/process.py|*/train.py)
                    asked=("${COMP_WORDS[0]}" -m scvae_data) program=${first##*/} program=${program%.py} ;;
                *) [[ -n ${_scvae_data_before-} ]] && $_scvae_data_before "$@"; return ;;
            esac ;;
        *)
            case $first in
                process|train) asked=(scvae-data) program=$first ;;
            esac ;;
    esac
    if [[ $COMP_CWORD -eq 1 ]]; then
        found=(@COMMANDS@)
    elif [[ -n ${program-} && $word == -* ]]; then
        found=(--help --multirun --cfg --config-dir --info --hydra-help)
    elif [[ -n ${program-} ]]; then
        found=($("${asked[@]}" completion @SHELL@ --line "$program ${line#*"$first"}" 2>/dev/null))
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
        [[ $candidate == "$word"* && ($candidate != -* || $word == -*) ]] || continue
        [[ $candidate == *[=./] ]] || candidate+=" "
        COMPREPLY+=("${candidate#"$split"}")
    done
    # Files behind the equals sign bash finds by itself.
    if [[ -n ${ZSH_VERSION-} && -z ${COMPREPLY[*]-} && $word == *=* ]]; then
        while IFS= read -r candidate; do
            [[ -d $candidate ]] && candidate+=/ || candidate+=" "
            COMPREPLY+=("${word%%=*}=$candidate")
        done < <(PREFIX=${word#*=} SUFFIX= compgen -f)
    fi
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


def candidates(program: Program, line: Sequence[str], word: str) -> list[str]:
    """Return what a word can go on as: groups and keys of a program, level by level, or values behind ``=``.

    Parameters
    ----------
    line
        The words before it, which choose options of groups.
    word
        What is there of it.
    """
    bare = word.lstrip("+~")
    name, behind, _ = bare.partition("=")
    groups = groups_of(program)
    if behind and name in groups:
        found = [f"{name}={option}" for option in groups[name].options]
    elif behind:
        found = [f"{name}={value}" for value in _values(_keys(program, line).get(name))]
    else:
        names = (f"{key}=" for key in (*groups, *_keys(program, line)))
        found = [_next_level(key, bare) for key in (*names, *OF_HYDRA) if key.startswith(bare)]
    return [word[: len(word) - len(bare)] + each for each in dict.fromkeys(found) if each.startswith(bare)]


def _keys(program: Program, line: Sequence[str]) -> dict[str, Key]:
    """Return the keys, none that holds others, that a program has where a command line chooses options."""
    chosen = dict(word.split("=", 1) for word in line if "=" in word)
    found = root_keys(program)
    for group in groups_of(program).values():
        option = group.options.get(chosen.get(group.name, group.chosen))
        found |= {name: key for name, key in group.keys.items() if option is None or name in option.keys}
    above = {name[:dot] for name in found for dot in range(len(name)) if name[dot] == "."}
    return {name: key for name, key in found.items() if name not in above}


def _values(key: Key | None) -> list[str]:
    """Return all values of a key where they are known, else that which it has if it is plain."""
    if key is None:
        return []
    if key.value in ("true", "false"):
        return ["false", "true"]
    if named := CHOICES.search(IN_BRACKETS.sub("", key.about)):
        return named[0].split(" | ")
    return [key.value] if PLAIN.fullmatch(key.value) else []


def _next_level(key: str, start: str) -> str:
    """Return a key as far as its next dot behind its start."""
    dot = key.find(".", len(start))
    return key if dot < 0 else key[: dot + 1]
