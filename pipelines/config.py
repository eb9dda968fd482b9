"""A YAML file of flags -> the words that the command line would have had.

    # run.yaml                       is the same as
    inputs: [scans/]                 pagemill transcribe scans/ --output out --format txt --format pdf --workers 4
    output: out
    format: [txt, pdf]
    workers: 4

What the command line says itself goes first. Paths in the file are taken as on the command line: from where one is.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any

from ocr_model.errors import BadArgument, BadInput


def words_of_config(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """The words that the file after `--config` stands for; none without one, or where the verb takes none.

    Raises:
        BadInput: the file cannot be read, is no YAML mapping, or names an unknown flag (with its line).
        BadArgument: a value that the flag does not take (with its line).
    """
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
    path = _config_path(argv)
    if path is None or "--config" not in parser._option_string_actions:
        return []
    given = {word.partition("=")[0] for word in argv}
    words: list[str] = []
    for key, value, line in _entries(path):
        action = actions.get(key.replace("-", "_"))
        if action is None:
            near = difflib.get_close_matches(key.replace("-", "_"), actions, n=1)
            hint = f"did you mean {near[0].replace('_', '-')}?" if near else "see --help for the flags"
            raise BadInput(f"{path}, line {line}: unknown key {key}", hint)
        if not given & set(action.option_strings) and not (not action.option_strings and _has_inputs(argv, parser)):
            _check(action, value, f"{path}, line {line}")
            words += _words(action, value)
    return words


def _config_path(argv: Sequence[str]) -> str | None:
    for i, word in enumerate(argv):
        if word.startswith("--config="):
            return word.partition("=")[2]
        if word == "--config" and i + 1 < len(argv):
            return argv[i + 1]
    return None


def _has_inputs(argv: Sequence[str], parser: argparse.ArgumentParser) -> bool:
    return bool(parser.parse_known_intermixed_args([*argv, "--output="])[0].inputs)


def _entries(path: str) -> list[tuple[str, Any, int]]:
    """(key, value, line from 1) of the mapping in the file."""
    import yaml

    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}", "name a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        what = getattr(error, "problem", None) or " ".join(str(error).split())
        raise BadInput(f"{where}: no YAML: {what}", "write `flag: value` lines") from error
    if node is None or node.tag.endswith(":null"):
        return []
    if not isinstance(node, yaml.MappingNode):
        raise BadInput(f"{path} holds no mapping", "write `flag: value` lines")
    entries: dict[str, tuple[str, Any, int]] = {}
    for key, part in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in entries:
            raise BadInput(f"{path}, line {line}: {name} is given a second time", "write a list for several values")
        entries[name] = (name, _value(part), line)
    return list(entries.values())


def _value(node: Any) -> Any:
    """A word, a list of words, true, false or None; a dictionary where it is none of these."""
    return [_word(part) for part in node.value] if node.id == "sequence" else _word(node)


def _word(node: Any) -> str | bool | dict[str, Any] | None:
    """What a scalar says, as it is written: YAML takes 1:30 for 90 and 010 for 8."""
    if node.id != "scalar":
        return {}
    if node.tag.endswith(":bool"):
        return node.value.lower() in ("yes", "true", "on")
    return None if node.tag.endswith(":null") else str(node.value)


def _check(action: argparse.Action, value: Any, where: str) -> None:
    if value is None:  # `limit:` with nothing behind it
        return
    values = value if isinstance(value, list) else [value]
    repeats = isinstance(action, argparse._AppendAction) or not action.option_strings
    is_switch = action.nargs == 0
    is_right = isinstance(value, bool) if is_switch else all(isinstance(part, str) for part in values)
    if not is_right or (isinstance(value, list) and not repeats):
        wanted = "true or false" if is_switch else "a list of words" if repeats else "one word"
        raise BadArgument(f"{where}: {action.dest.replace('_', '-')} does not take this", f"write {wanted}")
    for part in values:
        try:
            made = action.type(part) if callable(action.type) else part
        except (ValueError, TypeError) as error:
            raise BadArgument(f"{where}: {action.dest.replace('_', '-')} cannot be {part!r}", str(error)) from error
        if action.choices is not None and made not in action.choices:
            choices = ", ".join(map(str, action.choices))
            raise BadArgument(f"{where}: {action.dest.replace('_', '-')} cannot be {part!r}", f"choose from {choices}")


def _words(action: argparse.Action, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    values = [str(part) for part in (value if isinstance(value, list) else [value])]
    if not action.option_strings:
        return values
    flag = action.option_strings[-1]
    return [flag] if value is True else [f"{flag}={part}" for part in values]
