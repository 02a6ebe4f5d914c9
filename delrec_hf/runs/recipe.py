"""A recipe: one YAML file whose sections are the settings of the stages."""

import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from delrec_hf.errors import InputError, suggest

SECTIONS: dict[str, tuple[str, str]] = {
    "data": ("delrec_hf.data.config", "DataConfig"),
    "teacher": ("delrec_hf.teachers.config", "TeacherConfig"),
    "instructions": ("delrec_hf.instructions.config", "InstructionsConfig"),
    "backbone": ("delrec_hf.modeling.backbone", "BackboneConfig"),
    "calibrate": ("delrec_hf.ranking.calibration", "CalibrateConfig"),
    "distil": ("delrec_hf.training.distillation", "DistilConfig"),
    "finetune": ("delrec_hf.training.recommendation", "FinetuneConfig"),
    "evaluate": ("delrec_hf.evaluation.evaluator", "EvaluateConfig"),
}
"""Each section of a recipe and the dataclass, beside its stage, that says what its keys mean."""

TRAININGS = ("teacher", "distil", "finetune")
"""Sections whose settings are TrainingArguments."""

_TOP = ("output_dir", "seeds", "study")
"""What stands in a recipe beside its sections."""

_SIMPLE = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_UNQUOTED = " (YAML reads a bare yes, no, on and off as true and false: write it in quotes)"


class _Loader(yaml.SafeLoader):
    """YAML with the floats people write: plain PyYAML reads `5e-3` as a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


@dataclass
class Recipe:
    """What to run and where.

    Attributes:
        output_dir: Folder of the run.
        sections: Keys given for each section, as plain values; what is not given keeps the default.
        seeds: Seeds of teacher and both stages, to run all once for each; none: the sections' own.
        study: What `delrec study` changes, one thing at a time.
        shared_dir: Folder of what the runs of several seeds share; None: a run of its own.
        siblings: Folders of other runs, whose output is taken where it is of the same inputs and
            settings.
        name: What trackers call the project of its runs: that of its file.
    """

    output_dir: Path
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    study: dict[str, Any] = field(default_factory=dict)
    shared_dir: Path | None = None
    siblings: tuple[Path, ...] = ()
    name: str = "delrec"

    def settings(self, section: str, **forced: Any) -> Any:
        """Return the dataclass of a section, filled in.

        Args:
            section: One of `SECTIONS`.
            forced: Values that the pipeline decides (`output_dir`), over the recipe's.

        Raises:
            InputError: If a key is unknown, lacks or has a value of the wrong kind.
        """
        module, name = SECTIONS[section]
        kind = getattr(import_module(module), name)
        given = {**self.sections.get(section, {}), **forced}
        _check_keys(section, given, kind)
        hints = typing.get_type_hints(kind)
        given = {key: _as_list(hints[key], value) for key, value in given.items()}
        from transformers import HfArgumentParser

        try:
            return HfArgumentParser(kind).parse_dict(given)[0]
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"recipe section `{section}` cannot be used: {reason}") from error


def load_recipe(path: str | Path | None, flags: Sequence[str] = (), section: str = "") -> Recipe:
    """Read a recipe file and let the flags of the command line win over it.

    Paths in the file that begin with `./` or `../` start at the file's own folder; paths in flags
    start at the current folder.

    Args:
        path: YAML file, or None for flags alone.
        flags: `--section.key value ...`; `--key value` goes to `section`; `--output_dir D` is the
            run's folder; `--seeds 1 2 3` its seeds; `--teacher T` is `--teacher.type T`.
        section: Section of the stage that is run, if one is.

    Raises:
        InputError: If the file cannot be read, or a section or flag is unknown.
    """
    content = _read(Path(path)) if path is not None else {}
    for name, value in parse_flags(flags):
        if name == "teacher":  # the file's short form, `teacher: gru4rec`, as a flag
            name = "teacher.type"
        target, _, key = name.partition(".") if "." in name else (section, "", name)
        if name in _TOP:
            content[name] = value
        elif target not in SECTIONS:
            hint = suggest(target, SECTIONS) if "." in name else ""
            raise InputError(
                f"flag `--{name}` is unknown; write `--SECTION.KEY VALUE` with a section out of "
                f"{', '.join(SECTIONS)}{hint}"
            )
        else:
            content.setdefault(target, {})[key] = value
    output_dir, given = content.pop("output_dir", None), content.pop("seeds", None)
    study = content.pop("study", {})
    if not isinstance(output_dir, str):
        raise InputError("no folder for the run; set `output_dir` in the recipe or --output_dir")
    recipe = Recipe(Path(output_dir), content, _seeds(given), study)
    return recipe if path is None else replace(recipe, name=Path(path).stem)


def _seeds(given: Any) -> tuple[int, ...]:
    seeds = given if isinstance(given, list) else [] if given is None else [given]
    if not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise InputError(f"`seeds` is {given!r}; expected whole numbers, as in `seeds: [1, 2, 3]`")
    return tuple(seeds)


def parse_flags(flags: Sequence[str]) -> list[tuple[str, Any]]:
    """Split `--key value`, `--key=value` and `--key` (true) into pairs; values are read as YAML.

    >>> parse_flags(["--distil.learning_rate", "5e-3", "--a=b", "--names", "x", "y", "--yes"])
    [('distil.learning_rate', 0.005), ('a', 'b'), ('names', ['x', 'y']), ('yes', True)]
    """
    pairs: list[tuple[str, Any]] = []
    position = 0
    while position < len(flags):
        flag = flags[position]
        if not flag.startswith("--"):
            raise InputError(f"`{flag}` is not a flag; flags are written `--key value`")
        name, equals, value = flag[2:].partition("=")
        values = [value] if equals else []
        position += 1
        while position < len(flags) and not flags[position].startswith("--") and not equals:
            values.append(flags[position])
            position += 1
        parsed = [yaml.load(value, Loader=_Loader) for value in values]
        pairs.append((name, True if not parsed else parsed[0] if len(parsed) == 1 else parsed))
    return pairs


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"recipe {path} does not exist; give the path of a YAML file")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"recipe {path} is not valid YAML: {reason}") from error
    if not isinstance(content, dict):
        raise InputError(f"recipe {path} holds no sections; expected {', '.join(SECTIONS)}")
    for name, value in content.items():
        if name in _TOP:
            content[name] = _from_recipe(path.parent, value) if name == "study" else value
            continue
        if name not in SECTIONS:
            raise InputError(
                f"recipe section `{name}` in {path} is unknown; expected output_dir, "
                f"{', '.join(SECTIONS)}{suggest(str(name), SECTIONS)}"
            )
        if name == "teacher" and isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, dict):
            raise InputError(f"recipe section `{name}` in {path} must hold keys and values")
        content[name] = {key: _from_recipe(path.parent, given) for key, given in value.items()}
    return content


def _from_recipe(folder: Path, value: Any) -> Any:
    if isinstance(value, str) and value.startswith(("./", "../")):
        return str(folder / value)
    if isinstance(value, list):
        return [_from_recipe(folder, one) for one in value]
    if isinstance(value, dict):
        return {key: _from_recipe(folder, one) for key, one in value.items()}
    return value


def _check_keys(section: str, given: Mapping[str, Any], kind: type) -> None:
    known = {one.name: one for one in fields(kind) if one.init}
    hints = typing.get_type_hints(kind)
    for key, value in given.items():
        if key not in known:
            raise InputError(
                f"recipe key `{key}` in section `{section}` is unknown{suggest(str(key), known)}"
            )
        expected = _expected(hints[key], value)
        if expected:
            hint = _UNQUOTED if isinstance(value, bool) and expected == _SIMPLE[str] else ""
            raise InputError(
                f"recipe key `{section}.{key}` is {value!r}; expected {expected}{hint}"
            )
    for name, one in known.items():
        if one.default is MISSING and one.default_factory is MISSING and name not in given:
            meaning = one.metadata.get("help", "it has no default")
            raise InputError(f"recipe key `{section}.{name}` is missing: {meaning}")


def _expected(hint: Any, value: Any) -> str:
    """Say what was expected where a value does not fit a simple type hint, else nothing."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    literals = [v for o in options if typing.get_origin(o) is typing.Literal for v in o.__args__]
    if literals:
        fits = value in literals or type(value) in options
        return "" if fits else f"one of {', '.join(map(str, literals))}"
    if not all(option in _SIMPLE or option is type(None) for option in options):
        return ""  # lists, dicts and enums are checked by the dataclass itself
    if value is None:
        return "" if type(None) in options else _SIMPLE[options[0]]
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    accepted = (float, int) if float in options else ()
    if type(value) in (*options, *accepted):
        return ""
    return " or ".join(_SIMPLE[option] for option in options if option in _SIMPLE)


def _as_list(hint: Any, value: Any) -> Any:
    """Return a list of one for a single value (`--finetune.controls no-ta`) where a list is due.

    >>> _as_list(list[str] | None, "no-ta"), _as_list(list[str] | str, "all-linear")
    (['no-ta'], 'all-linear')
    """
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    items = [kind for one in options if typing.get_origin(one) is list for kind in one.__args__]
    return [value] if type(value) in items and type(value) not in options else value


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
