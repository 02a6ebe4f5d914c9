"""The `delrec` command: recipes in, runs out."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from delrec_hf import __version__
from delrec_hf.errors import InputError, fault_of_machine
from delrec_hf.extras import extra
from delrec_hf.launch import another_failed, launch, leave, tell
from delrec_hf.logging import configure, get_logger, quiet_libraries
from delrec_hf.model_commands import add_model_commands
from delrec_hf.runs.order import STAGES, stage_of_command
from delrec_hf.runs.recipe import SECTIONS, Recipe
from delrec_hf.title_words import titles_as_options

logger = get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after `delrec`; by default the process's own.

    Returns:
        0 on success, 2 after one line on stderr on bad input and on what only the machine's owner
        can cure (a full disk, a lost permission), 1 where `audit --fail_on` has its finding or
        `check` a number that does not hold. Any other fault raises (exit code 1).
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        known, rest = _parser().parse_known_args(words)
        configure(known.log_level)
        quiet_libraries()
        if rest and not known.takes_recipe_flags:
            raise InputError(
                f"`{rest[0]}` is not an option of `delrec {known.command}`; see --help"
            )
        if known.accelerate_config is not None:
            return launch(known.accelerate_config, _to_launch(words))
        return int(known.run(known, rest) or 0)
    except InputError as error:
        tell(f"delrec: error: {error}")
        return 2
    except BrokenPipeError:  # whoever reads the output (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        tell("delrec: stopped; run the same command again to continue")
        return 130
    except Exception as fault:  # any fault of this process: raised again, unless it has no own
        if another_failed():
            return 1
        line = fault_of_machine(fault)
        if line is not None:
            logger.debug("where it was met", exc_info=True)
            tell(f"delrec: error: {line}")
            return 2
        leave(f"{type(fault).__name__}: {fault}")
        raise
    return 0


def _to_launch(words: Sequence[str]) -> list[str]:
    """Return the command line of the processes that `--accelerate_config` starts."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--accelerate_config")
    return parser.parse_known_args(words)[1]


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other mistake's."""

    title_lists: Sequence[str] = ()
    """Options that titles follow, whatever these look like."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        options = self._option_string_actions
        return super().parse_known_args(
            titles_as_options(args, self.title_lists, options), namespace
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="delrec",
        description="DELRec: distil a sequential recommender into a language model, and rank.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"delrec_hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_recipe_commands(commands)

    report = _add(commands, "report", "write the page of one or several finished runs", _report)
    report.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or a results.json")
    report.add_argument(
        "--output",
        metavar="FILE.html",
        help="the page (default: report.html in the run's folder, or in the one that all lie in)",
    )
    check = _add(commands, "check", "compare a rerun with the results that were published", _check)
    check.add_argument("rerun", metavar="RUN", help="folder of the rerun, or its results.json")
    check.add_argument(
        "--against", metavar="RESULTS.json", required=True, help="the published results"
    )
    check.epilog = "Exit code 1 if a number is outside its published 95 % interval."
    add_model_commands(lambda *named: _add(commands, *named))
    return parser


def _add_recipe_commands(commands: "argparse._SubParsersAction[_Parser]") -> None:
    quickstart = _add(
        commands, "quickstart", "run the whole chain on the toy world, offline", _quickstart
    )
    quickstart.add_argument(
        "--output_dir", default="runs/quickstart", help="folder of the run (%(default)s)"
    )
    whole = _add(commands, "run", "run every stage of a recipe; finished ones are skipped", _run)
    study = _add(
        commands, "study", "run a recipe and what its `study` changes in it, and compare", _study
    )
    single = [_add(commands, stage.command, stage.description, _run) for stage in STAGES]
    for command in (whole, study, *single):
        command.add_argument("--config", metavar="RECIPE.yaml", required=True, help="the recipe")
    prepare = next(one for one in single if one.prog.endswith(" prepare"))
    prepare.add_argument(
        "--dry_run", action="store_true", help="say what would be read and left out, write nothing"
    )
    inspect = _add(
        commands, "inspect", "say what data hold and what `prepare` would make of them", _inspect
    )
    inspect.add_argument("path", help="folder, file, known name or Hub id: `data.path`")
    inspect.epilog = "Any key of the recipe's section `data` is a flag: `--min_rating 4`."
    inspect.set_defaults(takes_recipe_flags=True)
    _add_audit(commands)
    _add_plan(commands)
    for command in (quickstart, whole, study, *single):
        command.add_argument(
            "--accelerate_config",
            metavar="NAME",
            help="run in several processes: a file of `accelerate config`, or `ddp`, `zero2`, ...",
        )
        command.epilog = (
            f"Any recipe key is a flag: `--SECTION.KEY VALUE` (sections: {', '.join(SECTIONS)}); "
            "flags win over the file. A stage's own keys need no section."
        )
        command.set_defaults(takes_recipe_flags=True)


def _add_audit(commands: "argparse._SubParsersAction[_Parser]") -> None:
    audit = _add(commands, "audit", "look for faults in data, and in what a run made of it", _audit)
    what = audit.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="RECIPE.yaml", help="the recipe of a run")
    what.add_argument("--interactions", metavar="FILE", help="a file of interactions")
    audit.add_argument("--items", metavar="FILE", help="with --interactions: the file of items")
    audit.add_argument("--json", action="store_true", help="print JSON")
    audit.add_argument(
        "--fail_on", choices=("warning", "error"), help="exit with 1 on a finding as bad or worse"
    )
    audit.epilog = "Any key of the recipe's section `data` is a flag: `--min_rating 4`."
    audit.set_defaults(takes_recipe_flags=True)


def _add_plan(commands: "argparse._SubParsersAction[_Parser]") -> None:
    plan = _add(commands, "plan", "say what a recipe costs before anything starts", _plan)
    plan.add_argument("--config", metavar="RECIPE.yaml", required=True, help="the recipe")
    plan.add_argument("--device_memory", metavar="SIZE", help="what a GPU has, such as 24GB")
    plan.add_argument(
        "--tflops",
        metavar="N",
        help="rate of a GPU, such as 300; default: measured here",
    )
    plan.add_argument("--json", action="store_true", help="print JSON")
    plan.epilog = "Any recipe key is a flag: `--SECTION.KEY VALUE`; flags win over the file."
    plan.set_defaults(takes_recipe_flags=True)


def _add(commands, name, description, run):  # type: ignore[no-untyped-def]
    command = commands.add_parser(
        name, help=description, description=f"{description}.", allow_abbrev=False
    )
    command.add_argument(
        "--log_level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="what to log",
    )
    command.set_defaults(run=run, takes_recipe_flags=False, accelerate_config=None)
    return command


def _quickstart(known: argparse.Namespace, flags: Sequence[str]) -> None:
    from delrec_hf.resources import resource
    from delrec_hf.runs.pipeline import run_recipe
    from delrec_hf.runs.recipe import load_recipe

    path = resource("recipes/toy/quickstart.yaml")
    run_recipe(load_recipe(path, ["--output_dir", known.output_dir, *flags]))


def _run(known: argparse.Namespace, flags: Sequence[str]) -> None:
    from delrec_hf.runs.recipe import load_recipe

    stage = stage_of_command(known.command)
    recipe = load_recipe(known.config, flags, stage.section if stage else "")
    if getattr(known, "dry_run", False):
        _say(recipe)
        return
    from delrec_hf.runs.pipeline import run_recipe  # loads torch: seconds

    run_recipe(recipe, only=stage.name if stage else None)


def _study(known: argparse.Namespace, flags: Sequence[str]) -> None:
    from delrec_hf.runs.recipe import load_recipe
    from delrec_hf.runs.study import run_study

    run_study(load_recipe(known.config, flags))


def _inspect(known: argparse.Namespace, flags: Sequence[str]) -> None:
    from delrec_hf.runs.recipe import load_recipe

    named = ["--output_dir", "nowhere", "--path", known.path]  # nothing is written
    _say(load_recipe(None, [*named, *flags], "data"))


def _report(known: argparse.Namespace, _: Sequence[str]) -> None:
    with extra("report", ("matplotlib",)):
        from delrec_hf.reporting.page import write_report

    page = write_report(
        [Path(one) for one in known.runs], Path(known.output) if known.output else None
    )
    print(page)


def _check(known: argparse.Namespace, _: Sequence[str]) -> int:
    from delrec_hf.evaluation.check import check, format_checks
    from delrec_hf.reporting.reading import read_runs

    rerun, published = (one.results for one in read_runs([Path(known.rerun), Path(known.against)]))
    found = check(rerun, published)
    print(format_checks(found, rerun, published))
    return int(not all(one.holds for one in found))


def _audit(known: argparse.Namespace, flags: Sequence[str]) -> int:
    import json

    from delrec_hf.data.audit.checks import table
    from delrec_hf.runs.audit import as_json, audit_files, audit_run
    from delrec_hf.runs.recipe import load_recipe

    if known.config is not None and known.items is not None:
        raise InputError("--items goes with --interactions; a recipe names its own: data.items")
    if known.config is not None:
        found, checked = audit_run(load_recipe(known.config, flags, "data"))
    else:
        recipe = load_recipe(None, ["--output_dir", "nowhere", *flags], "data")  # nothing written
        items = {} if known.items is None else {"items": str(Path(known.items).absolute())}
        recipe.sections.setdefault("data", {}).update({"path": known.interactions, **items})
        found, checked = audit_files(recipe.settings("data"))
    if known.json:
        print(json.dumps(as_json(found), ensure_ascii=False, indent=2))
    else:
        print(table(found, checked))
    bad = {"warning": ("warning", "error"), "error": ("error",), None: ()}[known.fail_on]
    return int(any(one.severity in bad for one in found))


def _plan(known: argparse.Namespace, flags: Sequence[str]) -> None:
    import json
    from dataclasses import asdict

    from delrec_hf.runs.recipe import load_recipe

    recipe = load_recipe(known.config, flags)
    from delrec_hf.planning.plan import as_table, parse_memory, parse_tflops, plan_recipe

    plan = plan_recipe(
        recipe,
        None if known.device_memory is None else parse_memory(known.device_memory),
        None if known.tflops is None else parse_tflops(known.tflops),
    )
    print(json.dumps(asdict(plan), indent=2) if known.json else as_table(plan))


def _say(recipe: Recipe) -> None:
    """Print what the data of a recipe hold; the log says the same and is kept for faults."""
    from delrec_hf.data.inspection import inspect

    configure("error")
    print("\n".join(inspect(recipe.settings("data"))))
