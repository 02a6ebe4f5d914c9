"""The `delrec` command: recipes in, runs out."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from delrec_hf import __version__
from delrec_hf.errors import InputError
from delrec_hf.launch import another_failed, launch, leave, tell
from delrec_hf.logging import configure, quiet_libraries
from delrec_hf.runs.order import STAGES, stage_of_command
from delrec_hf.runs.recipe import SECTIONS
from delrec_hf.title_words import titles_as_options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after `delrec`; by default the process's own.

    Returns:
        0 on success, 2 on bad input, after one line on stderr. A fault raises (exit code 1).
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
        known.run(known, rest)
    except InputError as error:
        tell(f"delrec: error: {error}")
        return 2
    except KeyboardInterrupt:
        tell("delrec: stopped; run the same command again to continue")
        return 130
    except Exception as fault:  # any fault of this process: raised again, unless it has no own
        if another_failed():
            return 1
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

    recommend = _add(commands, "recommend", "recommend with a finished model", _recommend)
    recommend.add_argument("--model", required=True, help="folder or Hub id of a model")
    recommend.title_lists = ("--history", "--candidates")
    recommend.add_argument(
        "--history",
        required=True,
        nargs="+",
        action="extend",
        metavar="TITLE",
        help="titles or ids, oldest first; id:21 and title:21 where 21 is both",
    )
    recommend.add_argument(
        "--candidates",
        nargs="+",
        action="extend",
        metavar="TITLE",
        help="rank these (default: the catalogue)",
    )
    recommend.epilog = (
        "All words after --history and --candidates are titles up to the next option, also -30- "
        "or --help; one spelt like another option is written title:--json or --history=--json."
    )
    recommend.add_argument("--top_k", type=int, default=10, help="how many (default: 10)")
    recommend.add_argument(
        "--with_teacher",
        nargs="?",
        const=True,
        type=_true_or_false,
        metavar="true|false",
        help="rank with the teacher too, or do not (default: where the model holds one)",
    )
    recommend.add_argument(
        "--retrieve", type=int, help="how many items of the catalogue the teacher retrieves"
    )
    recommend.add_argument("--json", action="store_true", help="print JSON")
    _add_loading(recommend)

    export = _add(commands, "export", "fold prompt and LoRA into a plain checkpoint", _export)
    export.add_argument("--model", required=True, help="folder or Hub id of a model")
    export.add_argument("--output_dir", required=True, help="folder of the checkpoint")
    _add_loading(export)

    backbone = _add(
        commands, "backbone", "write a GGUF checkpoint as an ordinary folder", _backbone
    )
    backbone.add_argument("--gguf", metavar="FILE", required=True, help="the GGUF file")
    backbone.add_argument("--output_dir", required=True, help="folder of the backbone")
    backbone.add_argument(
        "--torch_dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="dtype of the weights (default: %(default)s)",
    )
    backbone.add_argument(
        "--source", metavar="ID", help="the original model on the Hub (default: what the file says)"
    )
    backbone.add_argument(
        "--licence", metavar="TEXT", help="the model's licence (default: what the file says)"
    )

    push = _add(commands, "push", "send a model to the Hub", _push)
    push.add_argument("--model", required=True, help="folder of a model")
    push.add_argument("--repo_id", required=True, help="name on the Hub: OWNER/NAME")
    push.add_argument("--private", action="store_true", help="make the repository private")
    push.add_argument("--dry_run", action="store_true", help="print card and files, send nothing")
    return parser


def _add_recipe_commands(commands: "argparse._SubParsersAction[_Parser]") -> None:
    quickstart = _add(
        commands, "quickstart", "run the whole chain on the toy world, offline", _quickstart
    )
    quickstart.add_argument(
        "--output_dir", default="runs/quickstart", help="folder of the run (%(default)s)"
    )
    whole = _add(commands, "run", "run every stage of a recipe; finished ones are skipped", _run)
    single = [_add(commands, stage.command, stage.description, _run) for stage in STAGES]
    for command in (whole, *single):
        command.add_argument("--config", metavar="RECIPE.yaml", required=True, help="the recipe")
    for command in (quickstart, whole, *single):
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


def _add_loading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--revision", help="commit, tag or branch of a model on the Hub")
    command.add_argument("--base_model", help="load this backbone instead of the recorded one")
    command.add_argument(
        "--torch_dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="dtype of the backbone (default: the one it was trained in)",
    )
    command.add_argument(
        "--load_in_4bit",
        nargs="?",
        const=True,
        type=_true_or_false,
        metavar="true|false",
        help="quantise the backbone to 4 bits, or do not (default: as it was trained)",
    )
    command.add_argument("--device", help="where to compute (default: the accelerator, or cpu)")
    command.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run the Python code that the backbone's repository brings",
    )


def _true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"`{text}` is neither true nor false")
    return text.lower() == "true"


def _loading(known: argparse.Namespace) -> dict[str, Any]:
    names = ("revision", "base_model", "torch_dtype", "load_in_4bit", "device", "trust_remote_code")
    return {name: getattr(known, name) for name in names}


def _quickstart(known: argparse.Namespace, flags: Sequence[str]) -> None:
    from delrec_hf.resources import resource
    from delrec_hf.runs.pipeline import run_recipe
    from delrec_hf.runs.recipe import load_recipe

    path = resource("recipes/toy/quickstart.yaml")
    run_recipe(load_recipe(path, ["--output_dir", known.output_dir, *flags]))


def _run(known: argparse.Namespace, flags: Sequence[str]) -> None:
    from delrec_hf.runs.pipeline import run_recipe
    from delrec_hf.runs.recipe import load_recipe

    stage = stage_of_command(known.command)
    recipe = load_recipe(known.config, flags, stage.section if stage else "")
    run_recipe(recipe, only=stage.name if stage else None)


def _recommend(known: argparse.Namespace, _: Sequence[str]) -> None:
    import json
    from dataclasses import asdict

    from delrec_hf.recommender import Recommender

    recommender = Recommender.from_pretrained(known.model, **_loading(known))
    found = recommender.recommend(
        known.history,
        known.candidates,
        top_k=known.top_k,
        with_teacher=known.with_teacher,
        retrieve=known.retrieve,
    )
    if known.json:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=2))
        return
    if found[0].teacher is None:
        print("ranked by the language model alone")
    else:
        print("ranked by the language model and its teacher: score, language model, teacher")
    for rank, one in enumerate(found, start=1):
        parts = () if one.teacher is None else (one.language_model, one.teacher)
        numbers = "".join(f"{number:9.3f}" for number in (one.score, *parts))
        print(f"{rank:>3}  {numbers}  {one.title}")


def _export(known: argparse.Namespace, _: Sequence[str]) -> None:
    from delrec_hf.modeling.export import export

    export(known.model, known.output_dir, **_loading(known))


def _backbone(known: argparse.Namespace, _: Sequence[str]) -> None:
    from delrec_hf.modeling.gguf import convert_gguf

    convert_gguf(
        known.gguf,
        known.output_dir,
        torch_dtype=known.torch_dtype,
        licence=known.licence,
        source=known.source,
    )


def _push(known: argparse.Namespace, _: Sequence[str]) -> None:
    from delrec_hf.hub.push import push

    push(known.model, known.repo_id, private=known.private, dry_run=known.dry_run)
